"""Scalars and keys as kubectl 1.32 reads them; the values are from `kubectl label --local -o json`."""

from __future__ import annotations

import pytest

from romana_ovs.kube.manifests.scalars import ScalarError, as_json, as_key, resolve, tagged

VALUES: list[tuple[str, object]] = [
    *((text, True) for text in ("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE")),
    *((text, False) for text in ("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE")),
    *((text, text) for text in ("yEs", "oN", "nuLL", "None", "=", "<<", "_1", "1e", "0b", "0b2", "0x", "0o8", "--1")),
    *((text, None) for text in ("", "~", "null", "Null", "NULL")),
    ("12", 12),
    ("+12", 12),
    ("-0", 0),
    ("0777", 511),
    ("-017", -15),
    ("0o17", 15),
    ("0O17", 15),
    ("0918237", 918237),
    ("080", 80),
    ("0_8", 8),
    ("1_000", 1000),
    ("1__2", 12),
    ("0b11", 3),
    ("-0b11", -3),
    ("-0x1F", -31),
    ("0X_ff", 255),
    ("80.0", 80),
    ("8e1", 80),
    ("1e3", 1000),
    ("5.", 5),
    (".5", 0.5),
    (".5_0", 0.5),
    (".5__0", ".5__0"),
    ("1_000.5", 1000.5),
    ("1e19", 1e19),
    ("1e400", "1e400"),
    ("9223372036854775807", 2**63 - 1),
    ("18446744073709551615", 2**64 - 1),
    ("18446744073709551616", 2.0**64),
    ("0x10000000000000000", "0x10000000000000000"),
    ("1:30", "1:30"),
    ("190:20:30", "190:20:30"),
    ("2024-01-01", "2024-01-01"),
    ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
    ("10.0.0.0", "10.0.0.0"),
    ("1" * 5000, "1" * 5000),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values(text: str, value: object) -> None:
    found = as_json(resolve(text))
    assert found == value
    assert type(found) is type(value)  # 1, 1.0 and True are equal


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("1", "1"),
        ("0x10", "16"),
        ("010", "8"),
        ("true", "true"),
        ("on", "true"),
        ("n", "false"),
        ("1.5", "1.5"),
        ("1e3", "1000"),
        ("1e30", "1e+30"),
        ("100000.0", "100000"),
        ("16777217.0", "1.6777216e+07"),
        ("123456789.5", "1.2345679e+08"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("0.1", "0.1"),
        ("-0.0", "-0"),
        (".inf", ".inf"),
        ("-.Inf", "-.inf"),
        ("1e40", ".inf"),
        (".nan", ".nan"),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_keys_become_strings(text: str, key: str) -> None:
    assert as_key(resolve(text)) == key


@pytest.mark.parametrize("text", ["~", "", "null", "18446744073709551615"])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ScalarError):
        as_key(resolve(text))


@pytest.mark.parametrize("text", [".inf", "-.inf", "+.INF", ".NaN"])
def test_what_json_does_not_have(text: str) -> None:
    with pytest.raises(ScalarError):
        as_json(resolve(text))


TAG = "tag:yaml.org,2002:"


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [
        (TAG + "str", "12", "12"),
        (TAG + "int", "12", 12),
        (TAG + "float", "3", 3.0),
        (TAG + "bool", "y", True),
        (TAG + "null", "~", None),
        (TAG + "timestamp", "2020-01-01", "2020-01-01"),
        (TAG + "binary", "aGVs\nbG8=", "hello"),
        (TAG + "python/object:os.system", "x", "x"),
        ("!", "12", "12"),
        ("!local", "y", "y"),
    ],
)
def test_tags(tag: str, text: str, value: object) -> None:
    found = tagged(tag, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("tag", "text"),
    [("int", "1.5"), ("bool", "maybe"), ("null", "x"), ("float", "x"), ("timestamp", "x"), ("binary", "%")],
)
def test_text_of_another_type_than_its_tag(tag: str, text: str) -> None:
    with pytest.raises(ScalarError):
        tagged(TAG + tag, text)
