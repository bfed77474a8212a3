"""What stands in a listing, in nft's own words, for people to read; no code reads it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256

from policylang.analysis.reading_nft.listing import Json, operation

FEW_ELEMENTS = 4
SUM_DIGITS = 12
# What an element has beside its value that matters to no packet.
BESIDE_ELEMENTS = frozenset({"timeout", "expires", "comment", "counter", "last"})


def phrase(expression: Json) -> str:
    """An expression as nft would write it, or nearly so."""
    match expression:
        case str(text):
            return text
        case bool(there):
            return "exists" if there else "missing"
        case int(number):
            return str(number)
        case None:
            return ""
        case [*parts]:
            return ",".join(map(phrase, parts))
        case {"match": {"op": op, "left": left, "right": right}}:
            operator = "" if op == "==" else f"{op} "
            return f"{phrase(left)} {operator}{phrase(right)}"
        case {"vmap": {"key": key, "data": data}}:
            return f"{phrase(key)} vmap {phrase(data)}"
        case {"map": {"key": key, "data": data}}:
            return f"{phrase(key)} map {phrase(data)}"
        case {"payload": {"protocol": protocol, "field": field, **rest}}:
            return " ".join((*map(phrase, rest.values()), f"{protocol} {field}"))
        case {"payload": {"base": base, "offset": offset, "len": length}}:
            return f"@{base},{offset},{length}"
        case {"ct": {"key": key, "dir": direction}}:
            return f"ct {direction} {key}"
        case {"meta": {"key": key}}:
            plain = str(key) in ("iifname", "oifname", "iif", "oif")
            return str(key) if plain else f"meta {key}"
        case {"fib": {"result": result, "flags": flags}}:
            names = flags if isinstance(flags, list) else [flags]
            return f"fib {' . '.join(map(str, names))} {result}"
        case {"concat": [*parts]}:
            return " . ".join(map(phrase, parts))
        case {"set": [*elements]}:
            return _braces([_element(element) for element in elements])
        case {"range": [low, high]}:
            return f"{phrase(low)}-{phrase(high)}"
        case {"prefix": {"addr": address, "len": length}}:
            return f"{phrase(address)}/{length}"
        case {"elem": {"val": value, **rest}}:
            measures = {word: said for word, said in rest.items() if word not in BESIDE_ELEMENTS}
            return " ".join((phrase(value), *(phrase({w: said}) for w, said in measures.items())))
        case {"mangle": {"key": key, "value": value}}:
            return f"{phrase(key)} set {phrase(value)}"
        case {"jump": {"target": target}}:
            return f"jump {target}"
        case {"goto": {"target": target}}:
            return f"goto {target}"
        case {"numgen": {"mode": mode, "mod": modulus, **rest}}:
            return f"numgen {mode} mod {modulus}{_behind(rest, 'offset')}"
        case {"jhash": {"mod": modulus, "expr": of, **rest}}:
            return f"jhash {phrase(of)} mod {modulus}{_behind(rest, 'seed', 'offset')}"
        case {"limit": {"rate": rate, "per": per, **rest}}:
            unit = f" {rest['rate_unit']}" if "rate_unit" in rest else ""
            burst = ""
            if unit and rest.get("burst"):
                burst = f" burst {rest['burst']} {rest.get('burst_unit', 'bytes')}"
            return f"limit rate {'over ' if rest.get('inv') else ''}{rate}{unit}/{per}{burst}"
        case {"quota": {"val": amount, "val_unit": unit, **rest}}:
            return f"quota {'over ' if rest.get('inv') else ''}{amount} {unit}"
        case {"set": {"op": op, "elem": element, "set": name, **rest}}:
            said = " ".join(("", *map(phrase, _list(rest.get("stmt")))))
            return f"{op} {name} {{ {phrase(element)}{said} }}"
    computed = operation(expression)
    if computed is not None:
        operator, operands = computed
        return f" {operator} ".join(map(phrase, operands))
    return _any(expression)


def _element(element: Json) -> str:
    match element:
        case [key, value]:
            return f"{phrase(key)} : {phrase(value)}"
    return phrase(element)


def _braces(elements: list[str]) -> str:
    """The first elements; of the others a sum, for what is said alike is taken for the same."""
    shown = elements[:FEW_ELEMENTS]
    if len(elements) > FEW_ELEMENTS:
        others = "\n".join(elements[FEW_ELEMENTS:]).encode(errors="surrogatepass")
        shown.append(f"… ({len(elements)} in all, {sha256(others).hexdigest()[:SUM_DIGITS]})")
    return "{ " + ", ".join(shown) + " }"


def _behind(said: Mapping[object, Json], *names: str) -> str:
    """What is said behind an expression: the words and values of the parts that count."""
    return "".join(f" {name} {phrase(said[name])}" for name in names if said.get(name))


def _list(values: Json) -> list[Json]:
    return values if isinstance(values, list) else []


def _any(expression: Json) -> str:
    """Words and values in the order in which the listing has them."""
    match expression:
        case {**body} if len(body) == 1:
            ((word, inner),) = body.items()
            return _worded(str(word), inner)
        case {**body}:
            return " ".join(_worded(str(word), value) for word, value in body.items())
    return json.dumps(expression)


def _worded(word: str, value: Json) -> str:
    """A part of an expression; its names stand for themselves."""
    return phrase(value) if word in ("key", "name", "field") else f"{word} {phrase(value)}".strip()
