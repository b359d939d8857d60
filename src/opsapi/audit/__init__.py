"""What was asked, by whom and with what answer: written for every call, linked so that tampering shows."""
