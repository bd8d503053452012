"""How an HSM gets a cluster's secrets, shares their renewals, and loses them."""
