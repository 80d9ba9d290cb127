package supervisor

import "net"

// listenPrivate makes a unix socket; who may connect is said by its folder.
func listenPrivate(name string) (net.Listener, error) { return net.Listen("unix", name) }
