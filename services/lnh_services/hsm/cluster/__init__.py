"""An HSM's cluster: gets its secrets, shares their renewals, and loses them."""
