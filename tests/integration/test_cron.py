"""The next runs of random schedules, as another implementation has them: cronsim for the calendar, zoneinfo
for the clocks, and docs/timer.md for what a clock change does to a run."""

import datetime
import random
import subprocess
import zoneinfo
from pathlib import Path

from cronsim import CronSim, CronSimError

PROGRAM = Path(__file__).parents[2] / "build" / "next-runs"
UTC = datetime.timezone.utc
YEARS_MOST = 9  # later runs are none
RUNS = 3
SCHEDULES = 100000
ZONES = """
UTC Europe/Berlin Europe/London Europe/Dublin Europe/Moscow Europe/Istanbul Europe/Lisbon Europe/Chisinau
America/New_York America/Chicago America/Los_Angeles America/Sao_Paulo America/St_Johns America/Santiago
America/Nuuk America/Havana America/Mexico_City America/Caracas America/Asuncion America/Phoenix
Australia/Lord_Howe Australia/Sydney Australia/Adelaide Pacific/Apia Pacific/Chatham Pacific/Kiritimati
Pacific/Auckland Pacific/Fiji Asia/Shanghai Asia/Kathmandu Asia/Tehran Asia/Kolkata Asia/Amman Asia/Gaza
Asia/Tokyo Africa/Casablanca Africa/Cairo Africa/Windhoek Antarctica/Troll Antarctica/Casey
""".split()
MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
DAYS = "SUN MON TUE WED THU FRI SAT".split()


# ---- schedules -------------------------------------------------------------


def item(r, low, high, names=(), star=True):
    """An item of a field, and the same for the judge; None: as it is."""
    first = r.randint(low, high)
    last = r.randint(first, high)
    step = r.randint(1, max(1, (high - low) // 2))
    kind = r.randrange(7 if star else 6)
    if kind == 0:
        return f"{first}-{last}", None
    if kind == 1:
        # The judge takes a range of one for its start.
        return f"{first}-{last}/{step}", str(first) if first == last else None
    if kind == 2:
        return f"{first}/{step}", f"{first}-{high}/{step}" if first < high else str(first)
    if kind == 3 and names:
        return r.choice([str.upper, str.lower, str.capitalize])(names[first - low]), str(first)
    if kind == 6:
        return f"*/{r.randint(2, max(2, (high - low) // 2))}", None
    return str(first), None


def field(r, low, high, names=(), star=0.5, steps=True):
    """A field of a schedule, and the same for the judge."""
    if r.random() < star:
        return "*", "*"
    if steps and r.random() < 0.2:
        text, _ = item(r, low, high)
        if text.startswith("*"):
            return text, text
    items = [item(r, low, high, names, star=False) for _ in range(r.choice([1, 1, 1, 2, 3]))]
    return ",".join(i[0] for i in items), ",".join(i[1] or i[0] for i in items)


def question(r, pair):
    return ("?", "*") if pair[0] == "*" and r.random() < 0.3 else pair


def schedule(r):
    """Form, text, and for the judge: seconds, its five fields, whether every hour matches."""
    kubernetes = r.random() < 0.4
    second = ("0", "0") if kubernetes or r.random() < 0.6 else field(r, 0, 59, star=0.1)
    minute = field(r, 0, 59, star=0.2)
    hour = field(r, 0, 23, star=0.35)
    # With both days restricted a star with a step is read in two ways: see what kubernetes_days tests.
    day = question(r, field(r, 1, 31, star=0.6, steps=not kubernetes))
    month = field(r, 1, 12, MONTHS, star=0.7)
    weekday = question(r, field(r, 0, 6, DAYS, star=0.6, steps=not kubernetes))
    fields = [minute, hour, day, month, weekday]
    if not kubernetes:
        fields.insert(0, second)
    seconds = [s for s in range(60) if matches(second[1], s)]
    judge = " ".join(f[1] for f in [minute, hour, day, month, weekday])
    return (
        "cron" if kubernetes else "schedule",
        " ".join(f[0] for f in fields),
        (seconds, judge, hour[0].startswith("*")),
    )


def matches(text, value):
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        low, high = (0, 59) if low == "*" else (int(low), int(high or low))
        if low <= value <= high and (value - low) % int(step or 1) == 0:
            return True
    return False


# ---- the judge -------------------------------------------------------------


def offset(zone, at):
    return datetime.datetime.fromtimestamp(at, zone).utcoffset().total_seconds()


def instants(zone, local, every_hour):
    """When a clock of the zone shows that, in seconds since 1970: where it comes twice the first time, or both
    times; where it never comes when the gap ends."""
    early, late = sorted(local.replace(tzinfo=zone, fold=fold).astimezone(UTC).timestamp() for fold in (0, 1))
    shown = [
        at
        for at in dict.fromkeys([early, late])
        if datetime.datetime.fromtimestamp(at, zone).replace(tzinfo=None) == local
    ]
    if shown:
        return shown if every_hour else shown[:1]
    before = offset(zone, early)
    while late - early > 1:
        middle = (early + late) // 2
        early, late = (middle, late) if offset(zone, middle) == before else (early, middle)
    return [late]


def not_before(zone, local):
    at = local.replace(tzinfo=UTC).timestamp()
    return at - max(offset(zone, at - 2 * 86400), offset(zone, at + 2 * 86400))


def locals_of(seconds, judge, start):
    """What clocks show at the runs from then on."""
    minute = start.replace(second=0)
    try:
        runs = CronSim(judge, minute - datetime.timedelta(minutes=1))
    except CronSimError:  # a day that no month has
        return
    for run in runs:
        for s in seconds:
            if (at := run.replace(second=s)) >= start:
                yield at


def expected(zone, judged, after):
    seconds, judge, every_hour = judged
    # Clocks that go back in a moment show again what they have shown.
    back = offset(zone, after) - min(offset(zone, after + h * 3600) for h in range(5))
    start = datetime.datetime.fromtimestamp(after - back, zone).replace(tzinfo=None)
    start = min(start, datetime.datetime.fromtimestamp(after, zone).replace(tzinfo=None))
    found = set()
    for local in locals_of(seconds, judge, start):
        if local.year > start.year + YEARS_MOST + 1:
            break
        if len(found) >= RUNS and not_before(zone, local) > sorted(found)[RUNS - 1]:
            break
        found.update(int(at) for at in instants(zone, local, every_hour) if at > after)
    return sorted(found)[:RUNS]


# ---- the test --------------------------------------------------------------


def changes(zone):
    """The clock changes of the zone, found by halving."""
    found = []
    for at in range(946684800, 2208988800, 86400 * 5):
        low, high = at, at + 86400 * 5
        if offset(zone, low) == offset(zone, high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(zone, middle) == offset(zone, low) else (low, middle)
        found.append(high)
    return found


def question_of(r, zones):
    name, (zone, moments) = r.choice(zones)
    form, text, judged = schedule(r)
    after = r.randint(946684800, 2208988800)
    if moments and r.random() < 0.5:
        after = r.choice(moments) + r.randint(-7200, 7200)
    return form, text, name, zone, after, judged


def test_next_runs_are_those_of_another_implementation():
    r = random.Random(1)
    assert len(ZONES) == 40
    zones = [(name, (z := zoneinfo.ZoneInfo(name), changes(z))) for name in ZONES]
    asked = [question_of(r, zones) for _ in range(SCHEDULES)]
    lines = "".join(f"{form}\t{text}\t{name}\t{after}\t{RUNS}\n" for form, text, name, _, after, _ in asked)
    told = subprocess.run(
        [PROGRAM], input=lines, capture_output=True, text=True, check=True, timeout=600
    ).stdout.splitlines()
    assert len(told) == SCHEDULES
    for (form, text, name, zone, after, judged), line in zip(asked, told):
        runs = [int(word) for word in line.split() if word != "never"]
        wanted = expected(zone, judged, after)
        # What comes after so many years is "never" here.
        wanted = wanted[: len(runs)] if runs else [w for w in wanted if w < after + YEARS_MOST * 365 * 86400]
        assert runs == wanted, f"{form} {text!r} in {name} after {after}: {runs}, and {wanted} elsewhere"
