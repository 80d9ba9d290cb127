// Package tlog reads, follows and writes transparency logs that speak the
// protocol of the Go checksum database.
//
// Trusted: the verifier key that the caller configures, this machine's clock
// (for times shown to people only) and the files below once their content has
// been checked. Not trusted: the server, whatever lies between (a module proxy
// that carries the log, a cache), and the content of files that a crash or a
// broken disk may have changed. A tree head counts only with a signature by
// the key and when it extends the head that was accepted before; a record
// counts only when a proof ties it to such a head.
//
// Three types do the work:
//
//   - [Client] keeps the newest accepted tree head and looks up single records.
//   - [Follow] reads all records of a log in order, from data tiles.
//   - [Log] is the write side: an append-only log and its HTTP server.
//
// Files of a Client, in [ClientConfig].Dir (NAME is the log's name and key ID):
//
//	NAME.head           the newest accepted tree head (signed note) and when it was accepted
//	NAME.head.previous  the one before, used when NAME.head is damaged
//	NAME.lock           taken while the head is compared and replaced
//	NAME.fork-HASH.txt  evidence: two tree heads, both signed, that can't both be true
//	NAME.shrunk-HASH.txt  two signed tree heads, the later one smaller and not proven to be of the same history
//
// Files of a Log, in its folder:
//
//	lock                taken by the one process that writes
//	records             every entry in order, framed and with checksums: the source of everything else
//	latest              the signed tree head
//	tile/8/...          full tiles in the layout of the protocol, written once, never changed
//	keys-...            table of the keys, made anew at each start
//
// Files of a [TileDir]: `latest` and `tile/8/...`, in the layout of the
// protocol, so that any file server or rsync can pass them on.
//
// Figures: following with indexing is bounded by hashing (BenchmarkFollow, on
// the machine of docs/log.md 0.30 µs a record; wanted is twice that, measured
// 2.9 times that for 72 million records, 2.0 times without SHA instructions).
// Durable appends are bounded by the disk's sync (BenchmarkLogAppend: wanted
// 1,000 a second, measured 46,564 with 128 appenders).
package tlog
