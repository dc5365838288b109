"""Phone numbers verified: a code is sent, checked and sent again, within limits."""
