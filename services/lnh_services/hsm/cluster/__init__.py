"""How an HSM comes to hold a cluster's secrets, shares their renewals, and loses them."""
