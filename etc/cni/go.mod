// The CNI plugin romana-cni: `make romana-cni` builds it (romana_ovs_emulate/cni_plugin.py).
module romana.io/romana-ovs/cni

go 1.21

require github.com/containernetworking/cni v1.3.0

require (
	github.com/vishvananda/netns v0.0.4 // indirect
	golang.org/x/sys v0.23.0 // indirect
)
