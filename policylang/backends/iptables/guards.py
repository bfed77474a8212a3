"""Spells guards: those that only look as sieves, those that count as the last of a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from policylang.backends.iptables.sieve import InexpressibleError, Sieve
from policylang.backends.iptables.targets import quoted
from policylang.ir.actions import (
    UNIT_S,
    CgroupGuard,
    ConnectionMarkGuard,
    ConnectionsGuard,
    End,
    MarkGuard,
    OwnerGuard,
    RateGuard,
    TimeGuard,
    UntilGuard,
)
from policylang.packets.values import Range, Ranges

Counting = RateGuard | ConnectionsGuard

# --- what only looks ------------------------------------------------------------------------------

ID_MOST = (1 << 32) - 2  # libxt_owner: UINT32_MAX is nobody
CGROUP_PATH_BYTES = 511  # linux/netfilter/xt_cgroup.h: XT_CGROUP_PATH_LEN 512, less the NUL
MARK_BITS = 0xFFFF_FFFF
OWNER_OPTIONS = {"user": "--uid-owner", "group": "--gid-owner"}

DAY_S = 86_400
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WEEK = Ranges.between(0, len(WEEKDAYS) * DAY_S - 1)
LAST_YEAR = 2037  # libxt_time: a rule without a last day has one in January 2038


Looking = OwnerGuard | CgroupGuard | MarkGuard | ConnectionMarkGuard | TimeGuard | UntilGuard


def guard_sieve(guard: Looking) -> Sieve:
    """What a packet must meet; raises InexpressibleError."""
    match guard:
        case OwnerGuard():
            return _owners(guard)
        case CgroupGuard(path):
            if len(path.encode()) > CGROUP_PATH_BYTES:
                raise InexpressibleError("so long a path of a cgroup")
            return Sieve.any_of([f"-m cgroup --path {quoted(path or '/')}"])
        case MarkGuard(value, mask):
            return Sieve.any_of([f"-m mark --mark {_masked(value, mask)}"])
        case ConnectionMarkGuard(value, mask):
            return Sieve.any_of([f"-m connmark --mark {_masked(value, mask)}"])
        case TimeGuard(week_s, is_local):
            if week_s.covers(WEEK):
                return Sieve.none_of(())
            # The clock goes on between one line and the next.
            return Sieve(tuple((w, True) for w in _windows(week_s, is_local)), may_overlap=True)
        case UntilGuard(last_day, is_local):
            if last_day.year > LAST_YEAR:
                raise InexpressibleError(
                    f"a last day in {last_day.year}",
                    help=f"iptables knows no time after {LAST_YEAR}",
                )
            stop = f"{last_day.isoformat()}T23:59:59"
            return Sieve.any_of([f"-m time --datestop {stop}{_zone(is_local)}"])
        case _:
            assert_never(guard)


def _masked(value: int, mask: int) -> str:
    return f"0x{value:x}" + ("" if mask == MARK_BITS else f"/0x{mask:x}")


def _owners(guard: OwnerGuard) -> Sieve:
    """Several names may stand for one user, and a name for one of the numbers."""
    if guard.ids and guard.ids.pairs[-1][1] > ID_MOST:
        raise InexpressibleError(f"a {guard.kind} above {ID_MOST}")
    option = f"-m owner {OWNER_OPTIONS[guard.kind]}"
    ids = [str(low) if low == high else f"{low}-{high}" for low, high in guard.ids]
    words = [*ids, *map(quoted, guard.names)]
    return Sieve(tuple((f"{option} {word}", True) for word in words), may_overlap=bool(guard.names))


def _windows(week_s: Ranges, is_local: bool) -> Iterator[str]:
    """The windows of a week, those of equal hours together; a day's end cuts every window.

    What begins and what ends at midnight on the same days is one window that spans it. The
    first and the last second both belong to a window, and xt_time takes one of a single second
    for the whole day.
    """
    days: dict[Range, list[int]] = {}
    for day in range(len(WEEKDAYS)):
        for low, high in week_s & Ranges.between(day * DAY_S, (day + 1) * DAY_S - 1):
            days.setdefault((low % DAY_S, high % DAY_S), []).append(day)
    for late in [hours for hours in days if hours[0] > 0 and hours[1] == DAY_S - 1]:
        for early in [hours for hours in days if hours[0] == 0 and hours[1] < late[0]]:
            if days[early] == days.get(late):
                days[late[0], early[1]] = days.pop(late)
                del days[early]
    for (start, stop), some in days.items():
        if start == stop:
            raise InexpressibleError("a window of one second")
        words = ["-m time"]
        if start > 0:
            words.append(f"--timestart {_clock(start)}")
        if stop < DAY_S - 1:
            words.append(f"--timestop {_clock(stop)}")
        if len(some) < len(WEEKDAYS):
            words.append(f"--weekdays {','.join(WEEKDAYS[day] for day in some)}")
        yield " ".join(words) + _zone(is_local)


def _clock(second: int) -> str:
    minutes, seconds = divmod(second, 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{seconds:02}" if seconds else text


def _zone(is_local: bool) -> str:
    return " --kerneltz" if is_local else ""


# --- what counts ----------------------------------------------------------------------------------

LIMIT_SCALE = 10_000  # linux/netfilter/xt_limit.h: XT_LIMIT_SCALE
LIMIT_STEPS_LEAST = 100  # a rate is a whole number of steps: fewer are more than 1 % off
LIMIT_BURST_MOST = 10_000  # libxt_limit
# xt_limit counts credits in 32 bits, HZ * CREDITS_PER_JIFFY a second; the most is at HZ=300.
# In the 64 bits of xt_hashlimit is room for no fewer seconds.
LIMIT_SECONDS_MOST = (1 << 32) // 38_400
HASHLIMIT_RATE_MOST = 1_000_000  # XT_HASHLIMIT_SCALE_v2
HASHLIMIT_BURST_MOST = 1_000_000  # libxt_hashlimit

# So many addresses have a bucket at a time. Packets of one more are dropped (`hotdrop` of
# xt_hashlimit.c): a flood of forged sources shuts others out, and lets nothing in.
BUCKETS_MOST = 65_535


def counting_match(guard: Counting, name: str, family: int) -> str:
    """The match of a guard; `name` is unique to it. Raises InexpressibleError."""
    match guard:
        case RateGuard():
            return _rate(guard, name, family)
        case ConnectionsGuard(count, over):
            side = "above" if over else "upto"
            return f"-m connlimit --connlimit-{side} {count}{_connections_of(guard, family)}"
        case _:
            assert_never(guard)


def _connections_of(guard: ConnectionsGuard, family: int) -> str:
    if guard.per is None:
        return " --connlimit-mask 0"
    length = guard.per.prefix_len_v4 if family == 4 else guard.per.prefix_len_v6
    side = "saddr" if guard.per.end is End.SOURCE else "daddr"
    return f" --connlimit-mask {length} --connlimit-{side}"


def _rate(guard: RateGuard, name: str, family: int) -> str:
    """Not every rate fits xt_limit.

    A high one is a coarse multiple of its steps, and a slow one with a large burst overflows its
    credits, which the kernel refuses or, worse, does not notice. xt_hashlimit holds the high
    ones, with nothing to hash where there is one bucket.
    """
    seconds = UNIT_S[guard.unit]
    steps, rest = divmod(LIMIT_SCALE * seconds, guard.count)
    rate = f"{guard.count}/{guard.unit}"
    slowness = guard.burst * seconds / guard.count
    if slowness > LIMIT_SECONDS_MOST:
        raise InexpressibleError(
            f"a rate of {rate} with a burst of {guard.burst}",
            help=f"a burst of {max(1, LIMIT_SECONDS_MOST * guard.count // seconds)} fits",
        )
    is_exact = steps >= (LIMIT_STEPS_LEAST if rest else 1) and guard.burst <= LIMIT_BURST_MOST
    if is_exact and guard.per is None and not guard.over:
        return f"-m limit --limit {rate} --limit-burst {guard.burst}"
    # xt_hashlimit holds a whole number of its own steps between two packets.
    steps, rest = divmod(HASHLIMIT_RATE_MOST * seconds, guard.count)
    if steps < (LIMIT_STEPS_LEAST if rest else 1) or guard.burst > HASHLIMIT_BURST_MOST:
        raise InexpressibleError(f"a rate of {rate} with a burst of {guard.burst}")
    words = [
        f"-m hashlimit --hashlimit-{'above' if guard.over else 'upto'} {rate}",
        f"--hashlimit-burst {guard.burst}",
    ]
    if guard.per is not None:
        side = "src" if guard.per.end is End.SOURCE else "dst"
        length = guard.per.prefix_len_v4 if family == 4 else guard.per.prefix_len_v6
        words.append(f"--hashlimit-mode {side}ip --hashlimit-{side}mask {length}")
        words.append(f"--hashlimit-htable-max {BUCKETS_MOST}")
    # A bucket that was not used for so long is full again and may be forgotten.
    full_ms = max(1000, int(slowness * 1000) + 1)
    words.append(f"--hashlimit-name {name} --hashlimit-htable-expire {full_ms}")
    return " ".join(words)
