"""Tables for a terminal."""

from emodarts.reports.document import Table, numbers, words
from emodarts.reports.plain import plain_table


def test_columns_are_aligned_and_text_stays_as_it_is() -> None:
    rows = (("a*b.wav", "1.00", "anger"), ("c[1].wav", "12.00", ""))
    table = Table((*words("file"), *numbers("end"), *words("label")), rows, ("caption",))
    assert plain_table(table).splitlines() == [
        "file        end  label",
        "a*b.wav    1.00  anger",
        "c[1].wav  12.00",
    ]


def test_a_table_without_rows_is_its_titles() -> None:
    assert plain_table(Table(words("a", "b"), ())) == "a  b"
