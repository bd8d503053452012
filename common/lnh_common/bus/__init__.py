"""How services talk: ROUTER on the serving side, DEALER on the asking side, typed operations in between."""
