"""libvirt's test driver: where these tests connect to."""

# A daemon inside this process, whose machines run nothing. All open connections see the same machines, which
# disappear when the last connection is closed.
URI = "test:///default"
