//! hookd: asks filters about mail while it arrives: milters, HTTP hooks, the administrator's Sieve scripts.
