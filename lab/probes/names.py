"""What the probe script and the reader of its output agree on."""

# Of the form of the output: a reader refuses a newer one.
VERSION = 1
BEGIN, END = "begin boxlite-probe", "end boxlite-probe"
# Values that are no text.
ABSENT, HIDDEN, PRIVATE, EMPTY = "(none)", "(not readable)", "(private)", "(empty)"

# The words of the kernel's command line that are shown, by the name before `=`. All others may be private.
COMMAND_LINE = ("apparmor", "security", "lsm", "selinux", "enforcing", "lockdown", "user_namespace.enable")
# AppArmor profiles, and files of such, that are shown: they may have to do with boxlite's sandbox. The names of
# others tell what is installed on a host.
PROFILES = ("*bwrap*", "*boxlite*", "*unshare*", "*userns*")
