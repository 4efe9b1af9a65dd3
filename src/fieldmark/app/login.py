"""The page that asks for the token."""

from __future__ import annotations

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>fieldmark</title><style>
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, "Segoe UI", sans-serif; color: #1f2933; background: #f6f7f8; margin: 0 }
form { max-width: 380px; margin: 16vh auto 0; background: #fff; border: 1px solid #e1e5e9;
  border-radius: 12px; padding: 28px }
h1 { font-size: 22px; margin: 0 0 6px } p { margin: 0 0 16px; color: #52606d } p.wrong { color: #b42318 }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: 9px 12px; border-radius: 8px }
input { border: 1px solid #cbd2d9 } button { margin-top: 12px; border: 0;
  background: #0f766e; color: #fff; cursor: pointer }
</style></head><body><form method="post" action="/login"><h1>fieldmark</h1>
<p>Paste the token that <code>fieldmark serve</code> printed when it was started.</p>WRONG
<label>Token<input name="token" type="password" autocomplete="current-password" autofocus required></label>
<button>Open the gallery</button></form></body></html>
"""


def login_page(wrong: bool = False) -> bytes:
    """A form that needs no script.

    Args:
        wrong: Whether a wrong token was just given.
    """
    note = "<p class='wrong' role='alert'>That is not the token. Is all of it there?</p>" if wrong else ""
    return _PAGE.replace("WRONG", note).encode()
