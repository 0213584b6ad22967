"""Reports on delivery, read as the RFCs say."""

import email


def check_report(raw, recipient, status):
    """RFC 3464 and RFC 3462: three parts, machine and man can read it."""
    report = email.message_from_bytes(raw)
    assert report.get_content_type() == "multipart/report" and report.get_param("report-type") == "delivery-status"
    assert report["Auto-Submitted"].startswith("auto-")
    assert raw.startswith(b"Return-Path: <>")
    parts = report.get_payload()
    assert parts[1].get_content_type() == "message/delivery-status"
    fields = parts[1].as_string()
    assert "Action: failed" in fields
    assert f"Final-Recipient: rfc822; {recipient}".lower() in fields.lower() or f"Final-Recipient: rfc822;{recipient}" in fields
    assert f"Status: {status}" in fields, fields
    assert parts[2].get_content_type() in ("message/rfc822", "text/rfc822-headers", "message/global", "message/rfc822-headers")
    assert "a letter" in parts[2].as_string()
