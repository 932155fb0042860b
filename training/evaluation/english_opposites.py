"""English words and their opposites, for turning what a sentence says into its contrary."""

from __future__ import annotations

_PAIRS = """
more less, most least, before after, earlier later, early late, high low, higher lower, highest lowest,
first last, always never, with without, above below, over under, large small, larger smaller, largest
smallest, big little, great minor, good bad, better worse, best worst, old new, older newer, young elderly,
younger older, long short, longer shorter, many few, same different, similar different, open closed, opened
closed, opening closing, win lose, won lost, winning losing, success failure, successful unsuccessful,
possible impossible, likely unlikely, able unable, legal illegal, alive dead, life death, born killed, rise
fall, rose fell, rising falling, increase decrease, increased decreased, increases decreases, increasing
decreasing, grow shrink, grew shrank, north south, east west, northern southern, eastern western, left
right, male female, men women, man woman, boys girls, boy girl, father mother, son daughter, brother sister,
husband wife, he she, his her, begin end, began ended, start stop, started stopped, starts stops, beginning
end, buy sell, bought sold, although because, despite because of, allow forbid, allowed banned, accept
reject, accepted rejected, agree disagree, agreed disagreed, inside outside, public private, positive
negative, strong weak, stronger weaker, hot cold, warm cool, fast slow, faster slower, easy difficult, rich
poor, safe dangerous, majority minority, maximum minimum, heavy light, true false, common rare, remember
forget, love hate, include exclude, includes excludes, included excluded, including excluding, support
oppose, supported opposed, confirmed denied, import export, attack defend, victory defeat, defeated lost to,
important unimportant, well badly, every no, all none of, some no, everyone nobody, near far from, up down,
into out of, found lost, arrived left, day night, morning evening, summer winter, upper lower, wide narrow,
deep shallow, full empty, friend enemy, advantage disadvantage, internal external, local foreign, domestic
international, modern ancient, rural urban, increase reduction, only also, still no longer, now then, often
rarely, frequently rarely, usually seldom, toward away from, towards away from, gain loss, profit loss,
create destroy, created destroyed, build demolish, built demolished
"""


def _opposites() -> dict[str, str]:
    """Words to phrases, both ways where both are single words; the first opposite given counts."""
    found: dict[str, str] = {}
    for entry in " ".join(_PAIRS.split()).split(", "):
        word, _, opposite = entry.partition(" ")
        found.setdefault(word, opposite)
        if " " not in opposite:
            found.setdefault(opposite, word)
    return found


OPPOSITES = _opposites()
"""Lower-case words and what takes their place."""
