"""The filter against Amazon's own engine (Event Ruler): both are asked the same, over thousands of patterns and events."""

import collections
import json
import random
import subprocess
import unicodedata

import pytest
from harness import ROOT, TOOLS
from harness.process import run

PAIRS = 3000
SEED = 20240607


@pytest.fixture(scope="module")
def jars():
    return run([TOOLS / "ruler", "fetch"], timeout=900).stdout.strip()


@pytest.fixture(scope="module")
def ask(jars):
    """ask(pairs of JSON texts) -> [(ours, the reference's)], each "true", "false", "refused: why" or "error: why"."""

    def answers(command, text, count):
        done = subprocess.run(
            command, input=text.encode("utf-8", "surrogatepass"), capture_output=True, timeout=300
        )
        lines = done.stdout.decode().split("\n")[:-1]
        assert done.returncode == 0 and len(lines) == count, (
            f"{command}: {done.returncode}, {len(lines)} answers to {count}\n{done.stderr.decode()}"
        )
        return lines

    def ask(pairs):
        text = "".join(f"{pattern}\t{event}\n" for pattern, event in pairs)
        assert text.count("\n") == len(pairs), "a text holds a line end"
        ours = answers([ROOT / "build" / "filter-pairs"], text, len(pairs))
        java = [
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{jars}/*",
            ROOT / "tests" / "filter" / "Reference.java",
        ]
        return list(zip(ours, answers(java, text, len(pairs))))

    return ask


def verdict(answer):
    return answer.split(":")[0].split(",")[0]


def differences(pairs, answers):
    return [
        f"{p}\n  {e}\n  ours: {ours}\n  reference: {theirs}"
        for (p, e), (ours, theirs) in zip(pairs, answers)
        if verdict(ours) != verdict(theirs)
    ]


def assert_agreement(pairs, answers):
    found = differences(pairs, answers)
    assert not found, f"{len(found)} of {len(pairs)} differ:\n" + "\n".join(found[:20])


# ---- writing JSON in many ways: an object is a list of pairs, so that names may come twice; a Number is written as it stands


class Number(str):
    pass


def write(value, rng):
    space = lambda: rng.choice(["", "", "", " ", "  "])  # noqa: E731
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(write_character(c, rng) for c in value) + '"'
    if isinstance(value, dict):
        value = list(value.items())
        pair = lambda kv: space() + write(kv[0], rng) + space() + ":" + space() + write(kv[1], rng)  # noqa: E731
        return "{" + ",".join(map(pair, value)) + space() + "}"
    if isinstance(value, Pairs):
        return "{" + ",".join(write(k, rng) + ":" + write(v, rng) for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(space() + write(v, rng) for v in value) + space() + "]"
    return json.dumps(value)


class Pairs(tuple):
    pass


def write_character(c, rng):
    if c in '"\\' or ord(c) < 0x20:
        return json.dumps(c)[1:-1]
    if c == "/" and rng.random() < 0.3:
        return "\\/"
    return json.dumps(c)[1:-1] if rng.random() < 0.15 or ord(c) < 0x7F else c


# ---- one operator each: an item for a value list, values that it should match and values that it should not. What is said here only
# steers the generation; the reference judges.

WORDS = [
    "open",
    "closed",
    "Open",
    "OPEN",
    "re-opened",
    "",
    "a",
    "ab",
    "abc",
    "straße",
    "STRASSE",
    "Ünïcode",
    "ünïcode",
    'quo"te',
    "back\\slash",
    "st*r",
    "日本語",
    "emoji 😀",
    "😀",
    "K",
    "k",
    "ſ",
    "İ",
    "i",
    "a/b/c.jar",
    "/usr/bin/x.jar",
    "line\nend",
    "true",
    "null",
    "1",
    "300",
    "N",
]
CASED = [w for w in WORDS if all(ord(c) < 0x10000 for c in w)]
NUMBERS = [
    "0",
    "-0",
    "0.0",
    "1",
    "1.0",
    "10",
    "1e1",
    "300",
    "300.0",
    "3.0e2",
    "3E+2",
    "-1",
    "-1.5",
    "0.1",
    "1e-1",
    "100e-3",
    "5",
    "42",
    "123456789012345",
    "0.3",
    "2147483648",
    "9007199254740993",
    "9007199254740992",
    "12345678901234567890",
    "0.1234567890123456789",
    "1e400",
    "1e-400",
    "4.9e-324",
    "1e22",
    "1e21",
    "3.14159",
    "0.000001",
    "1000000",
    "1e6",
    "1e5",
    "-273.15",
]
COMPARABLE = [
    n
    for n in NUMBERS
    if n not in ("9007199254740993", "12345678901234567890", "0.1234567890123456789", "1e400", "1e-400")
]
NETWORKS = [
    "10.0.0.0/8",
    "10.1.2.0/24",
    "192.168.0.0/16",
    "172.16.0.0/12",
    "10.1.2.3/31",
    "10.1.2.128/25",
    "2001:db8::/32",
    "2001:db8:0:1::/64",
    "2001:DB8::1/127",
    "fe80::/10",
]
ADDRESSES = [
    "10.0.0.1",
    "10.1.2.3",
    "10.1.2.200",
    "192.168.1.1",
    "172.31.255.255",
    "172.32.0.0",
    "11.0.0.1",
    "2001:db8::1",
    "2001:0DB8:0:1::5",
    "2001:db9::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "010.1.2.3",
    "::ffff:a01:203",
    "10.1.2",
    "10.1.2.256",
    "not an address",
    ":",
    "::",
    "12:30",
    "1::2::3",
]


def scalars(rng):
    return rng.choice(
        [
            lambda: rng.choice(WORDS),
            lambda: Number(rng.choice(NUMBERS)),
            lambda: rng.choice([True, False, None]),
        ]
    )()


def exact_string(rng):
    w = rng.choice(WORDS)
    return w, [w], [rng.choice(WORDS)]


def exact_number(rng):
    n = rng.choice(NUMBERS)
    same = [m for m in NUMBERS if float(m) == float(n)]
    return Number(n), [Number(rng.choice(same))], [Number(rng.choice(NUMBERS)), n]


def exact_word(rng):
    w = rng.choice([True, False, None])
    return w, [w], [scalars(rng), json.dumps(w)]


def exact_address(rng):
    a = rng.choice(ADDRESSES)
    return a, [a, a.upper()], [rng.choice(ADDRESSES)]


def exactly(rng):
    w = rng.choice(WORDS + ADDRESSES)
    return {"exactly": w}, [w], [rng.choice(WORDS), rng.choice(ADDRESSES)]


def cut(rng, w):
    return rng.randint(0, len(w))


# The start or end of a word. No quote stands at its cut, and known faults of the reference are kept out of each list (see DIFFERENCES).
def start_of(rng, w, least=0):
    return w[: rng.randint(least, len(w))].rstrip('"')


def end_of(rng, w, least=0):
    return w[rng.randint(0, len(w) - least) :].lstrip('"')


KNOWN_FAULTS = [
    ({"wildcard", "but_wildcard"}, {"caseless", "prefix_caseless", "suffix_caseless", "but_caseless"}),
    ({"exact_number"}, {"cidr", "exact_address"}),
]


def clash(operators):
    names = {op.__name__ for op in operators}
    return any(names & one and names & other for one, other in KNOWN_FAULTS)


def prefix(rng):
    w = rng.choice(WORDS)
    p = start_of(rng, w)
    return {"prefix": p}, [w, p, p + rng.choice(WORDS)], [scalars(rng), rng.choice(WORDS), p[:-1]]


def suffix(rng):
    w = rng.choice(WORDS)
    s = end_of(rng, w)
    return {"suffix": s}, [w, s, rng.choice(WORDS) + s], [scalars(rng), rng.choice(WORDS), s[1:]]


def recase(rng, w):
    return "".join(rng.choice([c.lower(), c.upper(), c]) for c in w)


def prefix_caseless(rng):
    w = rng.choice(CASED)
    p = start_of(rng, w)
    return (
        {"prefix": {"equals-ignore-case": recase(rng, p)}},
        [recase(rng, w), recase(rng, p)],
        [rng.choice(WORDS), scalars(rng)],
    )


def suffix_caseless(rng):
    w = rng.choice(CASED)
    s = end_of(rng, w)
    return (
        {"suffix": {"equals-ignore-case": recase(rng, s)}},
        [recase(rng, w), recase(rng, s)],
        [rng.choice(WORDS), scalars(rng)],
    )


def caseless(rng):
    w = rng.choice(CASED)
    return (
        {"equals-ignore-case": recase(rng, w)},
        [recase(rng, w), w.lower(), w.upper()],
        [rng.choice(WORDS), scalars(rng), w + "x"],
    )


def wild(rng, w):
    """A wildcard pattern that matches w."""
    text = "".join(("\\" + c if c in "*\\" else c) for c in w)
    for _ in range(rng.randint(1, 3)):
        i, j = sorted((cut(rng, w), cut(rng, w)))
        parts = ["".join(("\\" + c if c in "*\\" else c) for c in p) for p in (w[:i], w[j:])]
        text = "*".join(parts)
        if rng.random() < 0.4 and len(parts[1]) > 1 and "\\" not in parts[1]:
            k = rng.randint(1, len(parts[1]) - 1)
            text = parts[0] + "*" + parts[1][:k] + "*" + parts[1][rng.randint(k, len(parts[1])) :]
    return text


def wildcard(rng):
    w = rng.choice(WORDS)
    return {"wildcard": wild(rng, w)}, [w], [rng.choice(WORDS), scalars(rng)]


def but_value(rng):
    v = rng.choice([rng.choice(WORDS), Number(rng.choice(COMPARABLE))])
    return {"anything-but": v}, [scalars(rng), rng.choice(WORDS)], [v]


def but_strings(rng):
    vs = rng.sample(WORDS + ADDRESSES, rng.randint(1, 4))
    return {"anything-but": vs}, [scalars(rng)], vs


def but_numbers(rng):
    vs = [Number(n) for n in rng.sample(COMPARABLE, rng.randint(1, 4))]
    return {"anything-but": vs}, [scalars(rng)], vs


def one_or_list(rng, values):
    return values[0] if len(values) == 1 and rng.random() < 0.7 else values


def but_prefix(rng):
    ws = rng.sample([w for w in WORDS if w], rng.randint(1, 3))
    ps = [start_of(rng, w, 1) for w in ws]
    return {"anything-but": {"prefix": one_or_list(rng, ps)}}, [scalars(rng), rng.choice(WORDS)], ws


def but_suffix(rng):
    ws = rng.sample([w for w in WORDS if w], rng.randint(1, 3))
    ss = [end_of(rng, w, 1) for w in ws]
    return {"anything-but": {"suffix": one_or_list(rng, ss)}}, [scalars(rng), rng.choice(WORDS)], ws


def but_caseless(rng):
    ws = rng.sample(CASED, rng.randint(1, 3))
    return (
        {"anything-but": {"equals-ignore-case": one_or_list(rng, [recase(rng, w) for w in ws])}},
        [scalars(rng), rng.choice(WORDS)],
        [recase(rng, w) for w in ws],
    )


def but_wildcard(rng):
    ws = rng.sample(WORDS, rng.randint(1, 3))
    return (
        {"anything-but": {"wildcard": one_or_list(rng, [wild(rng, w) for w in ws])}},
        [scalars(rng), rng.choice(WORDS)],
        ws,
    )


def numeric(rng):
    op, n = rng.choice(["=", "<", "<=", ">", ">="]), rng.choice(COMPARABLE)
    near = [Number(m) for m in NUMBERS if abs(float(m) - float(n)) <= 10]
    return {"numeric": [op, Number(n)]}, near, [scalars(rng), Number(rng.choice(NUMBERS)), n]


def numeric_range(rng):
    low, high = sorted(rng.sample(COMPARABLE, 2), key=float)
    if float(low) == float(high):
        high = "1e24"
    inside = [Number(m) for m in NUMBERS if float(low) <= float(m) <= float(high)]
    return (
        {"numeric": [rng.choice([">", ">="]), Number(low), rng.choice(["<", "<="]), Number(high)]},
        inside,
        [scalars(rng), Number(rng.choice(NUMBERS)), Number(low), Number(high)],
    )


def cidr(rng):
    network = rng.choice(NETWORKS)
    return (
        {"cidr": network},
        [a for a in ADDRESSES if a[:2] == network[:2]],
        [rng.choice(ADDRESSES), rng.choice([True, None, Number("7")])],
    )


ABSENT = object()


def exists(rng):
    return {"exists": True}, [scalars(rng)], [ABSENT, [], Pairs()]


def absent(rng):
    return {"exists": False}, [ABSENT, [], Pairs(), Pairs([("inner", 1)])], [scalars(rng)]


OPERATORS = [
    exact_string,
    exact_number,
    exact_word,
    exact_address,
    exactly,
    prefix,
    suffix,
    prefix_caseless,
    suffix_caseless,
    caseless,
    wildcard,
    but_value,
    but_strings,
    but_numbers,
    but_prefix,
    but_suffix,
    but_caseless,
    but_wildcard,
    numeric,
    numeric_range,
    cidr,
    exists,
    absent,
]


class Generator:
    """Pairs in which patterns and events have much to do with each other."""

    NAMES = ["a", "b", "c", "state", "a-b", "é", "x.y", "a!"]

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.used = collections.Counter()

    def field(self, operator=None):
        """(value list, good values, bad values)"""
        rng, items, good, bad = self.rng, [], [], []
        operators = [operator] if operator else rng.choices(OPERATORS, k=rng.choice([1, 1, 1, 2, 3]))
        while clash(operators):
            operators.pop()
        for op in operators:
            item, yes, no = op(rng)
            self.used[op.__name__] += 1
            items.append(item)
            good += yes
            bad += no
        return items, good or [scalars(rng)], bad

    # A pattern's tree: {name: (items, good, bad) or tree}; "$or" holds a list of trees.
    def tree(self, depth=0, likely_or=0.25):
        rng, tree = self.rng, {}
        for name in rng.sample(self.NAMES, rng.choice([1, 1, 2, 2, 3])):
            deeper = depth < 3 and rng.random() < (0.45 if depth else 0.6)
            tree[name] = self.tree(depth + 1, likely_or / 2) if deeper else self.field()
        if rng.random() < likely_or:
            tree["$or"] = [self.tree(depth + 1, likely_or / 3) for _ in range(rng.choice([2, 2, 3]))]
            self.used["$or"] += 1
            tree = dict(rng.sample(list(tree.items()), len(tree)))
        return tree

    def pattern(self, tree):
        if isinstance(tree, list):
            return [self.pattern(t) for t in tree]
        return {k: v[0] if isinstance(v, tuple) else self.pattern(v) for k, v in tree.items()}

    def value(self, field, luck):
        rng, (_, good, bad) = self.rng, field
        one = lambda: rng.choice(good if rng.random() < luck or not bad else bad)  # noqa: E731
        shape = rng.random()
        if shape < 0.7:
            return one()
        values = [
            v
            for v in (rng.choice([one(), scalars(rng)]) for _ in range(rng.randint(0, 3)))
            if v is not ABSENT
        ]
        return [values, values] if shape > 0.97 else values

    def members(self, tree):
        """What the event's object may hold: each name with the fields and trees that the pattern has there."""
        found = collections.defaultdict(list)
        for name, below in tree.items():
            if name == "$or":
                for branch in below:
                    for k, v in self.members(branch).items():
                        found[k] += v
            else:
                found[name].append(below)
        return found

    def event(self, tree, luck):
        rng, pairs = self.rng, []
        for name, all_below in self.members(tree).items():
            for below in all_below if rng.random() < 0.1 else [rng.choice(all_below)]:
                value = self.value(below, luck) if isinstance(below, tuple) else self.below(below, luck)
                if value is ABSENT or rng.random() < 0.02:
                    continue
                if isinstance(value, Pairs) and rng.random() < 0.1:
                    pairs += [(f"{name}.{k}", v) for k, v in value]
                elif "." in name and rng.random() < 0.5:
                    outer, inner = name.split(".")
                    pairs.append((outer, Pairs([(inner, value)])))
                else:
                    pairs.append((name, value))
        for _ in range(rng.choice([0, 0, 1, 2])):
            pairs.append(
                (
                    rng.choice(self.NAMES + ["noise"]),
                    rng.choice([scalars(rng), [], [scalars(rng)], Pairs([("noise", scalars(rng))])]),
                )
            )
        rng.shuffle(pairs)
        return Pairs(pairs)

    def below(self, tree, luck):
        rng = self.rng
        if rng.random() < 0.55:
            return self.event(tree, luck)
        items = [self.event(tree, luck - rng.choice([0, 0.2])) for _ in range(rng.randint(0, 3))]
        if rng.random() < 0.15:
            items.insert(rng.randint(0, len(items)), scalars(rng))
        if rng.random() < 0.1:
            items = [items, [self.event(tree, luck)]]
        return items

    def pair(self, tree):
        return write(self.pattern(tree), self.rng), write(
            self.event(tree, luck=self.rng.choice([0.6, 0.9, 1])), self.rng
        )


def test_both_engines_agree(ask):
    g = Generator(SEED)
    single = [(op, g.pair({"a": g.field(op)})) for op in OPERATORS for _ in range(50)]
    pairs = [p for _, p in single] + [g.pair(g.tree()) for _ in range(PAIRS)]
    answers = ask(pairs)
    assert_agreement(pairs, answers)
    for ours, _ in answers:
        assert ours in ("true", "false"), ours
    matched = sum(ours == "true" for ours, _ in answers) / len(pairs)
    mixed = sum(ours == "true" for ours, _ in answers[len(single) :]) / PAIRS
    print(f"{len(pairs)} pairs, {matched:.0%} match, {mixed:.0%} of the mixed ones; {dict(g.used)}")
    assert 0.25 < matched < 0.75 and 0.25 < mixed < 0.75, (matched, mixed)
    assert all(g.used[op.__name__] >= 50 for op in OPERATORS) and g.used["$or"] >= 50, g.used
    outcomes = collections.Counter((op.__name__, ours) for (op, _), (ours, _) in zip(single, answers))
    assert all(outcomes[op.__name__, o] >= 5 for op in OPERATORS for o in ("true", "false")), outcomes


# ---- what is refused

OPERANDS = [
    "null",
    "true",
    "1",
    '"x"',
    '""',
    '"10.0.0.0/8"',
    "[]",
    '["x"]',
    "[1]",
    '["x", 1]',
    "[null]",
    "{}",
    '{"x": "y"}',
    '{"equals-ignore-case": "x"}',
    '["="]',
    '["=", 1]',
    '[">", 1, "<", 2]',
    '{"prefix": "x"}',
    '{"prefix": ["x", "y"]}',
]
NAMES = [
    "exactly",
    "prefix",
    "suffix",
    "equals-ignore-case",
    "wildcard",
    "anything-but",
    "numeric",
    "exists",
    "cidr",
    "regex",
    "Prefix",
    "",
    "$or",
]
VALUES = """
    {"prefix": "a", "suffix": "b"} | {"exists": true, "exists": false} | {"anything-but": "a", "prefix": "b"} | [] | ["a"] | {} | [[]] | {"prefix": {"equals-ignore-case": 1}}
    {"prefix": {"equals-ignore-case": "a", "x": 1}} | {"suffix": {"prefix": "a"}} | {"suffix": {}} | {"prefix": {"equals-ignore-case": ["a"]}} | {"exists": "true"} | {"exists": 1}
    {"wildcard": "a**b"} | {"wildcard": "**"} | {"wildcard": "a\\\\b"} | {"wildcard": "a\\\\"} | {"wildcard": "\\\\**"} | {"wildcard": "*\\\\*"} | {"wildcard": ["a"]}
    {"wildcard": "a\\\\\\\\*"} | {"wildcard": ""} | {"wildcard": "*"} | {"wildcard": "a*b*c"} | {"anything-but": {"wildcard": "a**"}} | {"anything-but": {"wildcard": ["*", "**"]}}
    {"anything-but": {"wildcard": "\\\\x"}} | {"anything-but": {"prefix": ""}} | {"anything-but": {"prefix": ["a", ""]}} | {"anything-but": {"suffix": ""}}
    {"anything-but": {"equals-ignore-case": ""}} | {"anything-but": {"prefix": {"equals-ignore-case": "a"}}} | {"anything-but": {"numeric": ["=", 1]}}
    {"anything-but": {"prefix": "a"}, "x": 1} | {"anything-but": {"prefix": "a", "suffix": "b"}} | {"anything-but": {"exists": true}} | {"anything-but": {"cidr": "10.0.0.0/8"}}
    {"anything-but": [true]} | {"anything-but": [["a"]]} | {"anything-but": [{"prefix": "a"}]} | {"anything-but": ["a", 1]} | {"anything-but": [1, "a"]} | {"anything-but": [1e400]}
    {"anything-but": 12345678901234567890} | {"anything-but": {"prefix": [1]}} | {"anything-but": {"suffix": [null]}} | {"anything-but": {"equals-ignore-case": [1]}}
    {"numeric": [">", 1, "<", 1]} | {"numeric": [">", 2, "<", 1]} | {"numeric": [">=", 1, "<=", 1]} | {"numeric": ["<", 1, ">", 0]} | {"numeric": ["<=", 1, ">=", 0]}
    {"numeric": ["=", 1, "<", 2]} | {"numeric": [">", 1, "<", 2, "<", 3]} | {"numeric": [">", 1, ">", 2]} | {"numeric": [">", 1, "=", 2]} | {"numeric": ["=", "1"]}
    {"numeric": [">", "1", "<", 2]} | {"numeric": ["!=", 1]} | {"numeric": ["==", 1]} | {"numeric": [1]} | {"numeric": [1, "="]} | {"numeric": [">", 1, "<"]} | {"numeric": [">", 1, 2]}
    {"numeric": ["=", 1e400]} | {"numeric": ["=", 12345678901234567890]} | {"numeric": ["<", 0.1234567890123456789]} | {"numeric": ["=", null]} | {"numeric": ["<="]}
    {"numeric": ["=", 9007199254740993]} | {"numeric": ["=", 9007199254740992]} | {"numeric": ["=", -1e-7]} | {"numeric": ["=", 1], "x": 1} | {"numeric": [">", 1, "<", true]}
    {"cidr": "10.0.0.0"} | {"cidr": "10.0.0.0/32"} | {"cidr": "10.0.0.0/33"} | {"cidr": "10.0.0.0/-1"} | {"cidr": "10.0.0.0/x"} | {"cidr": "10.0.0/8"} | {"cidr": "/8"} | {"cidr": "10.0.0.0/"}
    {"cidr": "10.0.0.256/8"} | {"cidr": "10.0.0.0/8/8"} | {"cidr": "2001:db8::/128"} | {"cidr": "2001:db8::/129"} | {"cidr": "2001:db8::/127"} | {"cidr": "2001:db8/32"} | {"cidr": ""}
    {"cidr": "::/0"} | {"cidr": "0.0.0.0/0"} | {"cidr": "::ffff:1.2.3.4/96"} | {"cidr": "::ffff:102:304/96"} | {"cidr": "1::2::3/64"} | {"cidr": "10.0.0.0/ 8"} | {"cidr": " 10.0.0.0/8"}
    {"cidr": "10.0.0.0/08"} | {"cidr": "12345::/16"} | {"cidr": "g::/16"} | {"cidr": 10} | {"cidr": "10.0.0.0/8", "x": 1} | {"exactly": 1} | {"exactly": ["a"]} | {"exactly": "a", "x": 1}
    01 | +1 | .5 | 1. | 1e | - | NaN | Infinity | nul | True | 'a' | "a | a | "\\q" | "\\u12" | "\\u12g4" | 1 2 | "a" "b" | , | "a", | /* c */ 1
"""
OBJECTS = """
    {} | [] | 1 | "a" | null | | {"a"} | {"a":} | {"a":1} | {"a":"b"} | {"a":null} | {"a":true} | {"a":[]} | {"a":{}} | {"a":{"b":1}} | {"a":{"b":{}}} | {"a":{"b":[]}} | {"a":[1]
    {"a":[1],} | {"a":[1,]} | {,} | {a:[1]} | {"a":[1] "b":[2]} | {"a" [1]} | {'a':[1]} | {"a":[1]]
    {"$or":[]} | {"$or":[{"a":[1]}]} | {"$or":{}} | {"$or":{"a":[1]}} | {"$or":[1,2]} | {"$or":["a"]} | {"$or":"a"} | {"$or":[{"a":[1]},1]} | {"$or":[{"a":[1]},{}]} | {"$or":[{},{}]}
    {"$or":[{"a":[1]},{"b":1}]} | {"$or":[{"prefix":["a"]},{"b":[1]}]} | {"$or":[{"a":{"numeric":[1]}},{"b":[1]}]} | {"$or":[{"exists":[true]},{"b":[1]}]} | {"$or":[{"=":[1]},{"b":[1]}]}
    {"$or":[{"a":[1]},{"regex":["a"]}]} | {"$or":[{"a":[1]},{"in-date-range":[1]}]} | {"prefix":["a"]} | {"numeric":[1]} | {"a":{"exists":[true]}} | {"exists":true}
    {"$or":[{"a":[1]},{"$or":[{"b":[1]}]}]} | {"$or":[{"a":[1]},{"$or":[{"b":[1]},{"c":[1]}]}]} | {"a":{"$or":[{"b":[1]}]}} | {"a":{"$or":[{"b":[1]},{"c":[]}]}} | {"$or":[[{"a":[1]}]]}
    {"$or":[{"$or":[{"a":[1]},{"b":[1]}],"prefix":["x"]},{"c":[1]}]} | {"a":{"prefix":["x"],"$or":[{"b":[1]},{"c":[1]}]}} | {"$or":[{"a":[1]},null]}
"""


def cells(table):
    return [c.strip() for line in table.strip().splitlines() for c in line.split(" | ")]


def test_both_refuse_the_same_patterns(ask):
    values = cells(VALUES) + [f'{{"{n}": {o}}}' for n in NAMES for o in OPERANDS]
    values += [
        f'{{"anything-but": {{"{n}": {o}}}}}'
        for n in ("prefix", "suffix", "equals-ignore-case", "wildcard", "exactly")
        for o in OPERANDS
    ]
    pairs = [(p, "{}") for p in cells(OBJECTS)] + [
        (f'{{"detail": {{"a": [{v}]}}}}', '{"b": 1}') for v in values
    ]
    answers = ask(pairs)
    assert_agreement(pairs, answers)
    refused = [ours for ours, _ in answers if verdict(ours) == "refused"]
    print(f"{len(refused)} of {len(pairs)} are refused")
    assert len(refused) > 200 and len(pairs) - len(refused) > 50
    assert all(len(r) > len("refused: ") + 10 for r in refused), "each says why"


EVENTS = """
    | [] | 1 | null | "a" | {"a" | {"a": | {"a":1 | {"a":1,} | {"a":1 "b":2} | {a:1} | {'a':1} | {"a":1]| {"a":[1} | {"a":[1,]} | {"a":[,1]} | {"a":[1 2]} | {,} | {"a"} | {"a":} | {"a":01}
    {"a":-} | {"a":1.} | {"a":.5} | {"a":1e} | {"a":1e+} | {"a":+1} | {"a":--1} | {"a":0x1} | {"a":NaN} | {"a":Infinity} | {"a":tru} | {"a":nulll} | {"a":True} | {"a":"b} | {"a":"\\q"}
    {"a":"\\u12"} | {"a":"\\u12g4"} | {"a":"b\\"} | {"b":01} | {"b":"\\q"} | {"b":[1,]} | {"b":{"c"}} | {"b":{"c":1,}} | {"b":tru} | {"b":[{]} | {"b":[}]} | {"a":{"b":1]} | /**/{} | {"a":1/**/}
    {} | {"a":1} | {"a":-0} | {"a":1E+5} | {"a":0.0e-1} | {"a":"\\u0000"} | {"a":"\\uD83D\\uDE00"} | {"a":"\\/\\b\\f\\n\\r\\t"} | {"":{}} | {"a":[[[]]]} | {"a":1,"a":2} | {"a":"\x7f"} | {"b":[{},[]]}
    {"a":"\x01"} | {"b":"\x1f"} | \ufeff{} | {"a":[1]}
"""


def test_both_refuse_the_same_events(ask):
    pairs = [('{"a":[1]}', e) for e in cells(EVENTS)]
    answers = ask(pairs)
    assert_agreement(pairs, answers)
    assert sum(verdict(ours) == "error" for ours, _ in answers) > 45


def test_where_or_is_a_name_both_take_it_for_one(ask):
    patterns = [
        '{"$or":["x","y"]}',
        '{"$or":["x"]}',
        '{"$or":[1,true,null]}',
        '{"$or":[{"prefix":"x"}]}',
        '{"$or":[{"prefix":"x"},{"suffix":"y"}]}',
        '{"$or":[{"exists":false}]}',
        '{"$or":[{"anything-but":["x"]},"z"]}',
        '{"$or":{"a":["x"]}}',
        '{"a":{"$or":["x"]}}',
        '{"$or":{"$or":["x"]}}',
        '{"$or":["x"],"a":{"$or":[1]}}',
        '{"$or":["x"],"b":[{"numeric":[">",1]}]}',
        '{"$or":["x"],"c":{"$or":[{"a":[1]},{"b":[1]}]}}',
        '{"$or":[{"numeric":["=",1]},{"cidr":"10.0.0.0/8"}]}',
    ]
    events = [
        '{"$or":"x"}',
        '{"$or":"y"}',
        '{"$or":["x","z"]}',
        '{"$or":1}',
        '{"$or":null}',
        '{"$or":{"a":"x"}}',
        '{"a":{"$or":"x"}}',
        '{"$or":{"$or":"x"}}',
        '{"$or":"x","a":{"$or":1}}',
        '{"$or":"x","b":2}',
        '{"x":1}',
        '{"$or":"10.1.2.3"}',
        "{}",
    ]
    pairs = [(p, e) for p in patterns for e in events]
    answers = ask(pairs)
    assert_agreement(pairs, answers)
    assert sum(verdict(ours) == "true" for ours, _ in answers) >= 15


def test_both_make_the_same_of_damaged_texts(ask):
    """A character is dropped, doubled or replaced; most of it is no JSON any more, some is another pattern or event."""
    rng, g = random.Random(SEED + 1), Generator(SEED + 1)

    def damaged(text):
        at = rng.randrange(len(text))
        return text[:at] + rng.choice(["", text[at] * 2, rng.choice('{}[],:"\\*0a-. <>=')]) + text[at + 1 :]

    pairs = []
    while len(pairs) < 1500:
        pattern, event = g.pair(
            {"a": g.field(), "b": {"c": g.field(), "x.y": g.field()}}
            if rng.random() < 0.5
            else g.tree(depth=2)
        )
        pairs.append((damaged(pattern), event) if rng.random() < 0.5 else (pattern, damaged(event)))
    # Known: what stands behind the object is refused by us only, and half surrogate pairs are; Java before 19 does not write each double in
    # the shortest way.
    known = ("something follows", "surrogate", "it cannot be compared", "Cannot compare number")
    answers = ask(pairs)
    kept = [(p, a) for p, a in zip(pairs, answers) if not any(k in text for k in known for text in a)]
    assert len(kept) > 1400
    assert_agreement(*zip(*kept))
    assert all(
        sum(verdict(ours) == v for ours, _ in answers) > 100 for v in ("true", "false", "refused", "error")
    )


def test_letters_are_the_same_in_both_cases(ask):
    """equals-ignore-case, for each letter that was in Unicode 3.2 already: newer ones depend on the version of Java."""
    letters = [
        chr(c)
        for c in range(0x80, 0x10000)
        if unicodedata.ucd_3_2_0.category(chr(c))[0] in "LN"
        and (chr(c).lower() != chr(c) or chr(c).upper() != chr(c))
    ]
    pairs = []
    for c in letters:
        for other in {c.lower(), c.upper(), c.title(), c, c.lower().upper(), c.upper().lower()}:
            quoted = json.dumps(other + "k", ensure_ascii=False)
            pairs.append((json.dumps({"a": [{"equals-ignore-case": c + "K"}]}), f'{{"a":{quoted}}}'))
            pairs.append(
                (json.dumps({"a": [{"suffix": {"equals-ignore-case": c + "K"}}]}), f'{{"a":{quoted}}}')
            )
    answers = ask(pairs)
    assert_agreement(pairs, answers)
    assert len(letters) > 1200 and {ours for ours, _ in answers} == {"true", "false"}


# ---- where ours is not as the reference, on purpose: (pattern, event, ours, the reference's). pkg/filter/filter.h says why.

DIFFERENCES = [
    # The characters that the reference puts around a string count as part of it.
    ('{"a":[{"prefix":"quo\\""}]}', '{"a":"quo"}', "false", "true"),
    ('{"a":[{"suffix":"\\"te"}]}', '{"a":"te"}', "false", "true"),
    # Networks match numbers whose digits look like an address, and addresses of the other kind.
    ('{"a":[{"cidr":"16.0.0.0/4"}]}', '{"a":16}', "false", "true"),
    ('{"a":["16.1.1.1"]}', '{"a":10010101}', "false", "true"),
    ('{"a":[{"cidr":"10.0.0.0/8"}]}', '{"a":"a12::1"}', "false", "true"),
    ('{"a":[{"cidr":"a00::/8"}]}', '{"a":"10.20.0.1"}', "false", "true"),
    # Operators in one list get in each other's way.
    (
        '{"a":[{"wildcard":"*s*h"},{"anything-but":{"equals-ignore-case":["N","S"]}}]}',
        '{"a":"cn"}',
        "true",
        "false",
    ),
    ('{"a":[0.1234567890123456789,{"cidr":"10.1.2.0/24"}]}', '{"a":0.1234567890123456789}', "true", "false"),
    # A combination that has a value in common with an earlier one is lost.
    ('{"$or":[{"a":[1,2]},{"a":[2,3]}]}', '{"a":3}', "true", "true: by one name false"),
    # Characters beyond U+FFFF do not equal themselves when case is ignored.
    ('{"a":[{"equals-ignore-case":"😀"}]}', '{"a":"😀"}', "true", "false"),
    # A first name that is empty is forgotten.
    ('{"":{"a":[1]}}', '{"":{"a":1}}', "true", "false"),
    ('{"":{"a":[1]}}', '{"a":1}', "false", "true"),
    # The largest double as a bound is refused by accident.
    ('{"a":[{"numeric":[">=",1.7976931348623157e308]}]}', '{"a":1.7976931348623157e308}', "true", "refused"),
    # Half a surrogate pair stands for a question mark.
    ('{"a":["?"]}', '{"a":"\\ud800"}', "false", "false"),
    ('{"a":[{"prefix":"?"}]}', '{"a":"\\ud800"}', "false", "true"),
    ('{"a":[{"prefix":"\ufffd"}]}', '{"a":"\\ud800"}', "true", "false"),
    ('{"a":["\\ud800"]}', '{"a":"\\ud800"}', "refused", "true"),
    # Sloppy networks, and texts behind the object, are refused.
    ('{"a":[{"cidr":"10.0.0.0/8/"}]}', '{"a":"10.0.0.1"}', "refused", "true"),
    ('{"a":[{"cidr":"10.0.0.0/+8"}]}', '{"a":"10.0.0.1"}', "refused", "true"),
    ('{"a":[1]} x', '{"a":1}', "refused", "true"),
    ('{"a":[1]}', '{"a":1} x', "error", "true"),
    # Bounds.
    ("{" + '"a":{' * 64 + '"a":[1]' + "}" * 65, "{}", "refused", "false"),
    (
        "{" + ",".join(f'"$or":[{{"a{i}":[1]}},{{"b{i}":[1]}}]' for i in range(10)) + "}",
        "{}",
        "refused",
        "false",
    ),
    ('{"a":["' + "x" * 70000 + '"]}', "{}", "refused", "false"),
    ('{"a":[1]}', '{"b":' + "1" * 2000 + ',"a":1}', "true", "error"),
]


def test_the_known_differences_are_what_they_are(ask):
    answers = ask([(p, e) for p, e, _, _ in DIFFERENCES])
    for (pattern, event, ours, theirs), (we, they) in zip(DIFFERENCES, answers):
        assert verdict(we) == ours, f"{pattern[:200]}  {event[:200]}: we say {we}"
        assert they == theirs or verdict(they) == theirs, (
            f"{pattern[:200]}  {event[:200]}: the reference says {they}"
        )
