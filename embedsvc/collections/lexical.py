import re

TOKENIZE = "ascii"
ANALYZER = "stub"


def analyze(text, language):
    return " ".join(re.findall(r"\w+", text.casefold()))


def match_expression(query, language):
    words = list(dict.fromkeys(re.findall(r"\w+", query.casefold())))
    return " OR ".join(f'"{w}"' for w in words) or None
