// Package supervisor keeps a Go service running and up to date.
//
// It starts the service, and when a newer version is known, allowed by the
// policy and due, it has it built, verifies it, replaces the binary, restarts
// the service and watches it for a while. What goes wrong from the moment the
// old version is stopped leads back to the old version.
//
// # What is trusted
//
// The configuration, the state folder and the folder of the service's binary:
// whoever writes there decides what runs. Nothing from the network is trusted;
// versions and binaries come through supervisor/discover and supervisor/fetch,
// which verify them. The service itself isn't trusted to behave: it is killed
// with its whole process group after a grace period, its output is bounded in
// memory, its exit status is only reported.
//
// Keeping the service running comes first: anything wrong with the state, the
// network, the log or the disk stops updates, and says so, and never the
// service.
//
// upkeep itself is updated too: a new version runs beside this one for a while,
// and has to say the same, before it takes its place by exec and goes on with the
// service, its output and all listeners (package handoff). This version stands by
// in a second process meanwhile, and takes over from one that fails in command.
//
// # Files
//
// In the state folder:
//
//	lock             held by the one supervisor that uses the folder
//	control.sock     control socket, mode 0600 (HTTP, see [Controller])
//	state            journal and decisions, with a check sum (package state)
//	state.prev       the one before
//	history          one JSON object a line, append-only
//	trial.sock       of a new version of upkeep that is being tried
//	relief.sock      of a version that stood by and gives way to one that is started
//	process          the service's process, to find it again after a crash
//	discovery/, fetch/    kept by supervisor/discover and supervisor/fetch
//
// Beside the service's name, for example /srv/hello/hello:
//
//	hello            symlink to the binary in use
//	hello-v1.0.1-go1.26.8       a binary; the last ones are kept
//	hello-v1.0.2-go1.26.8.tmp-…   a download, not executable, removed at start
package supervisor
