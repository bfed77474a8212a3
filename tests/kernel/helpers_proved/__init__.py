"""Proof that conntrack helpers work wherever a rule names them: peers, places, and the page.

`talk` has the two machines and what passes between them, a module a protocol the peers that speak
it, `places` where the firewall stands, `proof` what is tried and `page` what is written about it.
"""
