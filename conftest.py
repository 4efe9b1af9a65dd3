"""For tests and doctests alike."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def _untyped_while_tracing(request):
    """Shapes are symbols while a model is exported; comparing them would fix them."""
    if "portable" not in request.node.nodeid:
        yield
        return
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
