// Package retain keeps the sockets that a service listens on open while one
// process of the service ends and the next one starts, so that the kernel goes
// on completing handshakes and nobody is refused. The service knows nothing
// about it.
//
// The kernel tells of each bind call of the service (seccomp user notification,
// set up by package process). On the first run the keeper takes a duplicate of
// the socket and lets the call go on, so that the service binds with its own
// rights. When the next process binds the same address, it gets the kept socket
// in place of its own, under the same descriptor, and the call succeeds.
//
// # What is trusted
//
// The service is not trusted: what it says in its memory is read once and only
// decides whether it gets back a socket that an earlier process of the same
// service had bound by its own rights. Whatever goes wrong with a call lets it
// go on as if nobody had been told, so the worst that a keeper can do is to
// hold a port a while longer, and that is bounded: a socket that the new process
// doesn't claim is closed after it is ready, or after [Options].Claim. At most
// [maxSockets] sockets are kept.
//
// Files: none. Kept descriptors pass through package handoff when upkeep
// replaces itself, and are given to systemd's file descriptor store, so that a
// crash of upkeep loses none.
package retain

import "time"

const (
	// maxSockets bounds what is kept: services that bind many ports by number
	// are no servers of these.
	maxSockets = 64
	// claimTime is [Options].Claim where nothing is said.
	claimTime = time.Minute
	// readyTime is how long it may take from when it is ready: a second
	// listener can come a little later than the one that was asked.
	readyTime = 3 * time.Second
	// earlyTime: a process that ends sooner may have stumbled over what it was given.
	earlyTime = 10 * time.Second
	// quietTime is how long new connections are held off before the stop signal:
	// what was accepted has to send its request by then.
	quietTime = 100 * time.Millisecond
	// settleTime bounds the wait for a process that does not accept.
	settleTime = time.Second
	// holdTime bounds how long they are held off for a process that does not
	// close its listener while it ends.
	holdTime = 2 * time.Second
)
