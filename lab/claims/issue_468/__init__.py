"""boxlite-ai/boxlite issue 468: two of the jailer's tests fail where user namespaces are blocked.

Its text is quoted in each claim. It was filed for Ubuntu 24.04, whose policy the variant apparmor-userns-nocaps
puts on other guests.
"""
