"""The groups of languages over which figures on Tatoeba are published."""

from __future__ import annotations

XTREME = (
    "afr", "ara", "bul", "ben", "deu", "ell", "spa", "est", "eus", "pes", "fin", "fra",
    "heb", "hin", "hun", "ind", "ita", "jpn", "jav", "kat", "kaz", "kor", "mal", "mar",
    "nld", "por", "rus", "swh", "tam", "tel", "tha", "tgl", "tur", "urd", "vie", "cmn",
)  # fmt: skip
"""The 36 languages of XTREME (Hu et al., ICML 2020)."""

LASER = (
    "afr", "amh", "ara", "aze", "bel", "ben", "ber", "bos", "bre", "bul", "cat", "cbk",
    "ces", "cmn", "cor", "dan", "deu", "dtp", "ell", "epo", "est", "eus", "fin", "fra",
    "gle", "glg", "heb", "hin", "hrv", "hun", "hye", "ido", "ile", "ina", "ind", "isl",
    "ita", "jpn", "kab", "kat", "kaz", "khm", "kor", "kur", "kzj", "lat", "lfn", "lit",
    "lvs", "mal", "mar", "mhr", "mkd", "nds", "nld", "nob", "oci", "pes", "pol", "por",
    "ron", "rus", "slk", "slv", "spa", "sqi", "srp", "swe", "swh", "tam", "tat", "tel",
    "tgl", "tha", "tur", "uig", "ukr", "urd", "uzb", "vie", "wuu", "yue", "zsm",
)  # fmt: skip
"""The languages with a test set that LASER's training data have, by the list of 93 in its README: 83. LaBSE
(arXiv 2007.01852) counts 82 and does not name them."""

GROUPS = {"36 of XTREME": XTREME, "83 that LASER was trained on": LASER}
