//! reportd: gathers what is reported of DMARC and TLS, writes the reports that are due, and keeps those of others.
