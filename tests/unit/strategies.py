"""Text as a stranger may send it, for every test in this folder that shows that nothing can be sent that hurts."""

from __future__ import annotations

from hypothesis import strategies as st

ANY_CHARACTER = st.characters(exclude_categories=())
"""Every code point, lone surrogates too."""

ANY_TEXT = st.text(ANY_CHARACTER)
