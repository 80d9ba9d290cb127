// Package dnsserver is an authoritative name server for one zone, which it
// makes up from an index of module versions and signs while it answers.
//
// It trusts its configuration, its keys and the index (which only holds what
// was verified). It trusts nothing that a packet says: queries are read by a
// parser that follows no pointers, answers never grow beyond what the asker
// and the transport allow, and work that costs a signature is bounded.
//
// How a query is answered, in the order of the files: a listener (udp*.go,
// tcp.go) hands packets to [Handler.Respond]; query.go reads them; cache.go
// has answers that were given before, in wire format; zone.go finds what exists
// at a name, in the configuration or in the index; answer.go makes the sections;
// signer.go signs record sets and keeps signatures;
// opt.go adds the EDNS part.
//
// With compact denial a name that does not exist costs a signature; missing.go
// puts the answer together, and of it only the signature is kept (stamp.go). How
// much of its time a UDP worker signs is in share.go. With a chain
// (chain.go, kept in step with the index by chainbuild.go) denial.go answers for
// it from records that were signed once. Then the chain alone says what exists:
// a name that the index has learned is there when the next chain has it.
//
// An answer in the cache belongs to one generation of the index. When the
// index changes every answer is made anew, but a record set that is still the
// same keeps its signature.
//
// On disk: the folder of keys, pairs of files K<zone>+<algorithm>+<tag>.key and
// .private in the format of BIND's tools, which the server only reads.
package dnsserver
