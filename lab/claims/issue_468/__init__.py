"""boxlite-ai/boxlite issue 468: two tests of the jailer fail on hosts that block user namespaces.

Its text is quoted in each claim. It was filed for Ubuntu 24.04, whose policy the variant apparmor-userns-nocaps
puts on other guests. It mixes two causes: its audit line is that policy's, its error text that of a bubblewrap
that may not be executed, which the variant apparmor-bwrap-exec-deny brings about.
"""

TITLE = "Bug report issue-468"
