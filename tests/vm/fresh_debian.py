"""What a guest of Debian's packages does with the settings that its packages bring."""

# A script for the guest's root, which prints as JSON what is not as the packages have it:
# `sysctls` have another value than the files of sysctl.d say, of which the last one by name counts.
# `pam` are modules that a package's profile turns on, and that no common stack of /etc/pam.d has.
# `units` were enabled when their packages were installed, and neither run, ended well, nor failed a condition.
# `masked` are units that lead to /dev/null, and `packages` those that are installed.
SCRIPT = r"""python3 - <<'PROGRAM'
import glob, json, os, re, subprocess

def output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout

def differing_sysctls():
    files = {}
    for folder in ("/usr/lib/sysctl.d", "/etc/sysctl.d"):
        files.update({os.path.basename(file): file for file in glob.glob(folder + "/*.conf")})
    values = {}
    for name in sorted(files):
        for line in open(files[name]):
            key, equals, value = line.strip().lstrip("-").partition("=")
            if equals and not key.startswith(("#", ";")) and "*" not in key:
                # The kernel prints no number in hexadecimal, as a file may have it.
                words = [str(int(word, 16)) if word.startswith("0x") else word for word in value.split()]
                values[key.strip()] = " ".join(words)
    differing = {}
    for key, value in values.items():
        path = "/proc/sys/" + key.replace(".", "/")
        if os.path.exists(path) and " ".join(open(path).read().split()) != value:
            differing[key] = [value, open(path).read().strip()]
    return len(values), differing

def missing_modules():
    stacks = "".join(open(file).read() for file in glob.glob("/etc/pam.d/common-*"))
    profiles = [open(file).read() for file in glob.glob("/usr/share/pam-configs/*")]
    on = "".join(profile for profile in profiles if re.search("^Default: *yes", profile, re.M))
    modules = set(re.findall(r"pam_\w+\.so", on))
    return sorted(modules), sorted(module for module in modules if module not in stacks)

def idle_units():
    folder = "/var/lib/systemd/deb-systemd-helper-enabled/"
    links = [link[len(folder):] for link in glob.glob(folder + "*.wants/*")]
    units = sorted({os.path.basename(link) for link in links if os.path.lexists("/etc/systemd/system/" + link)})
    names = ("LoadState", "ActiveState", "ConditionResult", "ConditionTimestampMonotonic", "Result", "Type")
    idle = {}
    for unit in units:
        shown = output("systemctl", "show", "--property=" + ",".join(names), "--", unit)
        state = dict(line.split("=", 1) for line in shown.splitlines())
        tried = state["ConditionTimestampMonotonic"] != "0"
        ended = state.get("Type") == "oneshot" and state.get("Result") == "success"
        skipped = state["ConditionResult"] == "no" or ended
        running = state["ActiveState"] == "active" or tried and skipped
        if state["LoadState"] != "masked" and not running:
            idle[unit] = state
    return units, idle

sysctls, pam, units = differing_sysctls(), missing_modules(), idle_units()
masked = output("systemctl", "list-unit-files", "--state=masked", "--no-legend", "--no-pager")
print(json.dumps({
    "brought": {"sysctls": sysctls[0], "pam": pam[0], "units": units[0]},
    "sysctls": sysctls[1], "pam": pam[1], "units": units[1],
    "masked": sorted(line.split()[0] for line in masked.splitlines()),
    "packages": output("dpkg-query", "-W", "-f", "${Package}\n").split(),
    "failed": output("systemctl", "--failed", "--plain", "--no-legend", "--no-pager").splitlines(),
}))
PROGRAM
"""
