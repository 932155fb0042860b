from __future__ import annotations

import json

import pytest

from embedsvc.errors import InvalidInputError
from embedsvc.jobs.kinds import KINDS, checked_options, kind_of, options_of
from embedsvc.mining.options import MiningOptions
from embedsvc.server.requests.jobs import INPUT_NAMES

MINE = KINDS["mine"]


def test_options_are_those_of_the_library_and_survive_json():
    given = {"src_lang": "deu", "filters": ["default"], "k": 8, "threshold": 1.1}
    kept = json.loads(json.dumps(checked_options(MINE, given)))
    assert options_of(MINE, kept) == MiningOptions(src_lang="deu", filters=("default",), k=8, threshold=1.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"margn": "ratio"}, "no option is called 'margn'; the nearest is 'margin'"),
        ({"Threshold": 1}, "no option is called 'Threshold'; the nearest is 'threshold'"),
        ({"k": "four"}, "options: k is 'four': Input should be a valid integer"),
        ({"k": 0}, "k = 0; it must be at least 1"),
        ({"margin": "log"}, "options: margin is 'log'"),
        ({"filters": "default"}, "options: filters is 'default'"),
        ({"k": 4.5}, "options: k is 4.5"),
        ({"k": True}, "options: k is True"),
        ({"src_lang": "qqqq"}, "qqqq"),
        ({"threshold": float("nan")}, "threshold is not a number"),
        ({"threshold": float("-inf")}, "threshold = -inf; it must be finite"),
        ({"x" * 10**6: 1}, "no option is called 'x+'; the nearest is"),
    ],
)
def test_a_wrong_option_is_named(given, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        checked_options(MINE, given)
    assert len(caught.value.message) < 400


def test_an_unknown_kind_is_answered_with_those_that_there_are():
    with pytest.raises(InvalidInputError, match=r"kind is 'mime'; known: .*mine"):
        kind_of("mime")


def test_requests_have_a_field_for_every_input_of_every_kind():
    assert {known.name for kind in KINDS.values() for known in kind.inputs} <= INPUT_NAMES
