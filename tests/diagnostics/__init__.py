"""An example of every diagnostic, and what is told of it.

`CODE.policy`, or every `*.policy` in the folder `CODE`, is a policy that has the mistake and no
other; the `.txt` beside it is what `policylang check` says. What no policy can bring about has a
function in `triggers`.
"""
