"""CSV files as people have them are read rightly, or refused with the file and the line."""

import codecs

import pytest

from mmaml_tf.command_line.errors import InputError
from mmaml_tf.command_line.points import read_points

PLAIN = "x,y\n0,0.1\n1,0.9\n"
ROWS = [[0, 0.1], [1, 0.9]]


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "points.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_points(str(path))

    return read


SAME = {
    "spaces": "x , y\n 0,\t0.1\n1 , 0.9 \n",
    "blank rows": "\n,,\nx,y\n\n0,0.1\n,\n  \n1,0.9\n,,\n",
    "Windows": PLAIN.replace("\n", "\r\n"),
    "old Mac": PLAIN.replace("\n", "\r"),
    "quotes": '"x", "y"\n"0","0.1"\n"1","0.9"\n',
    "quoted decimal commas": '"x","y"\n"0","0,1"\n"1","0,9"\n',
    "semicolons": "x;y\n0;0.1\n1;0.9\n",
    "decimal commas": "x;y\n0;0,1\n1,0;0,9\n",
    "tabs": "x\ty\n0\t0.1\n1\t0.9\n",
    "tabs and decimal commas": "x\ty\n0\t0,1\n1\t0,9\n",
    "sep=": "sep=;\r\nx;y\r\n0;0,1\r\n1;0,9\r\n",
    "quoted sep=": '"sep=|"\nx|y\n0|0.1\n1|0.9\n',
    "trailing commas": "x,y,\n0,0.1,\n1,0.9,\n",
    "trailing commas of rows": "x,y\n0,0.1,,\n1,0.9,\n",
    "UTF-8 with BOM": codecs.BOM_UTF8 + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, big endian": codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME)
def test_the_same_points_in_many_forms(read, content):
    points = read(content)
    assert (points.names, points.rows, points.unnamed) == (["x", "y"], ROWS, False)


@pytest.mark.parametrize(
    "content",
    [",x,y\n0,0,0.1\n1,1,0.9\n", ",x,y\n17,0,0.1\n4,1,0.9\n", "Unnamed: 0,x,y\n0,0,0.1\n1,1,0.9\n"],
)
def test_an_index_of_pandas_is_left_out_and_said(read, content):
    points = read(content)
    assert (points.names, points.rows, points.unnamed) == (["x", "y"], ROWS, True)


def test_points_know_their_lines_and_columns(read):
    points = read("sep=,\n\nx,y\n0,0.1\n,,\n1,0.9\n")
    assert points.lines == [4, 6]
    assert points.columns(["y", "x"]) == [[0.1, 0], [0.9, 1]]


def test_decimal_commas_show_what_a_comma_before_three_digits_is(read):
    assert read("x;y\n0,5;1,234\n").rows == [[0.5, 1.234]]
    assert read("x;y\n0;-0,234\n").rows == [[0, -0.234]]


def test_names_may_hold_other_separators_in_quotes(read):
    assert read('"x; m","y, s"\n0,1\n').names == ["x; m", "y, s"]


REFUSED = {
    "thousands": ("x;y\n0;1,234\n1;2,345\n", ["line 2", "1,234", "thousands"]),
    "quoted thousands": ('x,y\n0,"1,234"\n', ["line 2", "thousands"]),
    "thousands and decimals": ("x;y\n0;1\n1;1.234,5\n", ["line 3", "1.234,5", "thousands"]),
    "millions": ("x;y\n0,5;1,234,567\n", ["line 2", "thousands"]),
    "points and commas": ("x;y\n0,5;1.5\n", ["line 2", "0,5", "decimals"]),
    "thousands with points": ("x;y\n0;1.234.567\n", ["line 2", "'1.234.567'", "not all numbers"]),
    "thousands with spaces": ("x;y\n0;1 234\n", ["line 2", "not all numbers"]),
    "underscores": ("x,y\n0,1_000\n", ["line 2", "not all numbers"]),
    "missing": ("x,y\n0,\n", ["line 2", "value of y is missing"]),
    "missing in one column": ('x\n1\n""\n2\n', ["line 3", "value of x is missing"]),
    "NA": ("x,y\n0,NA\n", ["line 2", "y is 'NA'"]),
    "decimal comma of one column": ("x\n0,5\n", ["line 2", "decimals have a point"]),
    "header too long": ("x,y,\n0,1\n", ["line 2", "2 values", "has 3"]),
    "no name": ("x,,y\n0,1,2\n", ["column 2 of 3", "no name"]),
    "first without name": (",y\n0.5,1\n", ["first column has no name"]),
    "names that spaces distinguish": ("x,x ,y\n0,1,2\n", ["names a column twice"]),
    "no header": ("0,0.1\n1,0.9\n", ["0.1", "a header with names is expected"]),
    "two separators": ("x;a,y\n0;1,2\n", ["comma and semicolon", "sep=;"]),
    "another separator": ("x|y\n0|1\n", ["line 2", "comma, semicolon or tab"]),
    "NUL": ("x,y\n0,1\n1,\x002\n", ["line 3", "NUL"]),
    "UTF-16 without BOM": (PLAIN.encode("utf-16-le"), ["line 1", "NUL", "UTF-8"]),
    "Latin-1": ("é,y\n0,1\n".encode("latin1"), ["cannot be read", "UTF-8"]),
    "Excel": (b"PK\x03\x04\x14\0", ["spreadsheet", "CSV"]),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1", ["spreadsheet", "CSV"]),
    "open quote": ('x,y\n0,"1\n1,2\n', ["line 3", "not all numbers"]),
    "huge value": (f"x,y\n0,{'1' * 200_000}\n", ["line 2", "cannot be read"]),
    "sep= alone": ("sep=;\n", ["header line and at least one point"]),
}


@pytest.mark.parametrize(("content", "parts"), REFUSED.values(), ids=REFUSED)
def test_what_could_be_wrong_is_refused(read, content, parts):
    with pytest.raises(InputError) as error:
        read(content)
    for part in ["points.csv", *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(("name", "reason"), [("", "Is a directory"), ("no.csv", "No such file")])
def test_what_is_no_file(tmp_path, name, reason):
    with pytest.raises(InputError, match=reason):
        read_points(str(tmp_path / name))
