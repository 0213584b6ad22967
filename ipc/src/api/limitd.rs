//! limitd: counts what each address, sender, recipient and account has used: rates, quotas, greylisting.
