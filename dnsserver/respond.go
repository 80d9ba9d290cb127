package dnsserver

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"github.com/miekg/dns"
)

// Respond appends the answer to a packet to out and returns it; nothing is
// appended when nothing is to be said. When the answer needs a signature that
// has to be made first and sign is false, it returns false.
func (h *Handler) Respond(out, packet []byte, c Client, sign bool) ([]byte, bool) {
	var q query
	how := atOnce
	if sign {
		how = signing
	}
	return h.respond(out, packet, c, &q, h.now(), how)
}

// A mode says how far an answer may go.
type mode uint8

const (
	atOnce  mode = iota // only with signatures that are there
	crowded             // the same, and no more queries can wait: no work for what was not asked for lately
	signing             // making signatures
	queued              // making signatures; it was counted for the rate limit before it waited
)

func (h *Handler) respond(out, packet []byte, c Client, q *query, now time.Time, how mode) ([]byte, bool) {
	st := h.stat
	verdict := parseQuery(packet, q)
	if verdict == verdictDrop {
		st.dropped.Add(1)
		return out, true
	}
	v := h.view.Load()
	var a *answer
	switch {
	case verdict == verdictNotImp:
		a = failure(dns.RcodeNotImplemented, edeNone, "")
	case verdict == verdictFormErr:
		q.tsigName = nil
		q.forgetOptions()
		if !q.badOptions {
			q.question = nil // it can't be relied on
		}
		a = failure(dns.RcodeFormatError, edeNone, "")
	case verdict == verdictBadVers:
		a = failure(dns.RcodeBadVers, edeNone, "")
	case verdict == verdictTSIG:
		a = failure(dns.RcodeNotAuth, edeNone, "")
	case q.question == nil: // asks for a cookie
		a = failure(dns.RcodeSuccess, edeNone, "")
	case q.class != dns.ClassINET:
		a = failure(dns.RcodeRefused, edeNotAuth, "")
	default:
		var err error
		if a, err = h.find(v, q, now, how); err != nil {
			if c.Transport != UDP || h.cookie(q, c, now).valid {
				return out, false
			}
			// The limit comes before the work of signing.
			cat := catAnswer
			if err == errDenialNotSigned {
				cat = catDenial
			}
			return h.limited(out, v.limit.decide(c.Addr.Addr(), cat, h.hash(q), now, q.id), q, c, now, nil)
		}
	}
	cookie := h.cookie(q, c, now)
	n := len(out)
	if c.Transport == UDP && how != queued && !cookie.valid {
		if d := v.limit.decide(c.Addr.Addr(), categoryOf(a), a.hash, now, q.id); d != decideSend {
			out, _ = h.limited(out, d, q, c, now, a)
			return out, true
		}
	}
	out = h.write(out, v, q, a, c, now, &cookie)
	st.count(c.Transport, q, out[n:], a)
	if every := h.sample.Load(); every > 0 && h.sampled.Add(1)%every == 0 {
		h.logQuery(q, a, c)
	}
	return out, true
}

// limited does what the limiter decided; false means that nothing stands in
// the way of an answer, which is nil when it is not known yet.
func (h *Handler) limited(out []byte, d decision, q *query, c Client, now time.Time, a *answer) ([]byte, bool) {
	switch d {
	case decideDrop:
		h.stat.limited.Add(1)
		return out, true
	case decideTruncate:
		h.stat.limited.Add(1)
		return h.appendTruncated(out, q, c, now, a), true
	}
	return out, false
}

// LogQueries logs one of so many queries; 0 is none.
func (h *Handler) LogQueries(every int) { h.sample.Store(uint64(max(every, 0))) }

func (h *Handler) logQuery(q *query, a *answer, c Client) {
	if q.question == nil {
		return
	}
	h.log.Info("query", "client", c.Addr.Addr(), "transport", c.Transport, "name", showName(q.name()),
		"type", dns.Type(q.qtype).String(), "do", q.do, "rcode", dns.RcodeToString[int(a.rcode)], "answers", a.an)
}

// A cookieReply is the option that an answer carries, and whether the query's
// was ours.
type cookieReply struct {
	valid bool
	buf   [clientCookieLen + serverCookieLen]byte
	n     int
}

func (h *Handler) cookie(q *query, c Client, now time.Time) (r cookieReply) {
	if q.cookie == nil || q.version != 0 {
		return r
	}
	secrets := *h.cookies.Load()
	unix := uint32(now.Unix())
	renew := true
	if r.valid, renew = checkCookie(secrets, q.cookie, c.Addr.Addr(), unix); r.valid && !renew {
		r.n = copy(r.buf[:], q.cookie)
	} else {
		r.n = len(appendCookie(r.buf[:0], &secrets[0], q.cookie, c.Addr.Addr(), unix))
	}
	return r
}

// find returns the answer to a question, from the cache or anew.
// The error is one of the two that say that a signature is missing.
func (h *Handler) find(v *view, q *query, now time.Time, how mode) (*answer, error) {
	key := q.cacheKey()
	hash := maphash.Bytes(h.seed, key)
	a, known := v.answers.get(key, hash, v.gen, now.Unix())
	if a == nil && v.chain != nil {
		if a, err := h.findChained(v, q, now, how); a != nil || err != nil {
			return a, err
		}
	}
	if a == nil && !known {
		a, known = v.denials.get(key, hash, v.gen, now.Unix())
	}
	if a != nil {
		h.stat.hits.Add(1)
		return a, nil
	}
	if v.chain == nil && !known {
		if a, err := h.findMissing(v, q, now, how); a != nil || err != nil {
			return a, err
		}
	}
	if how == crowded && !known && q.do {
		return nil, errDenialNotSigned
	}
	a, err := v.answer(q, now, how >= signing)
	if err == errNotSigned || err == errDenialNotSigned {
		return nil, err
	}
	if err != nil {
		h.log.Error("answering", "name", showName(q.name()), "type", dns.TypeToString[q.qtype], "err", err)
		return failure(dns.RcodeServerFailure, edeNone, ""), nil
	}
	if a.body != nil {
		a.key, a.hash, a.gen = string(key), hash, v.gen
		// What is not there comes in endless variety: it has its own, smaller
		// cache, so that it can't push out what is.
		if a.an > 0 && a.rcode == dns.RcodeSuccess && q.qtype != dns.TypeNSEC && q.qtype != dns.TypeRRSIG {
			v.answers.put(a)
		} else {
			v.denials.put(a)
		}
	}
	return a, nil
}

// hash tells questions apart.
func (h *Handler) hash(q *query) uint64 { return maphash.Bytes(h.seed, q.cacheKey()) }

// write appends the message: header, question, records and OPT.
func (h *Handler) write(out []byte, v *view, q *query, a *answer, c Client, now time.Time, cookie *cookieReply) []byte {
	start := len(out)
	limit := maxSize
	if c.Transport == UDP {
		limit = minSize
		if q.edns {
			limit = min(max(int(q.size), minSize), udpSize)
		}
	}
	opt := ednsReply{ede: edeNone}
	if q.edns {
		opt = h.reply(v, q, a, c)
		if cookie.n > 0 {
			opt.cookie = cookie.buf[:cookie.n]
		}
	}
	flags := uint16(flagQR) | q.flags&(opcodeMask|flagRD|flagCD) | uint16(a.rcode&0xf)
	if a.aa {
		flags |= flagAA
	}
	an, ns, ar, body := a.an, a.ns, a.ar, a.body
	room := limit - headerLen - len(q.question)
	if q.edns {
		room -= opt.size()
		if room < 0 { // a long name and much beside it: the options are less important
			room += opt.size() - 11
			opt = ednsReply{rcode: opt.rcode, do: opt.do, co: opt.co, ede: edeNone}
		}
	}
	if len(body) > room && a.extra < len(body) {
		body, ar = body[:a.extra], 0 // addresses are a courtesy
	}
	if len(body) > room {
		body, an, ns, ar = nil, 0, 0, 0
		flags |= flagTC
	}
	if q.edns {
		ar++
	}
	bad := q.tsigName != nil && room >= len(q.tsigName)+len(q.tsigAlg)+26
	if bad {
		ar++
	}
	qd := uint16(0)
	if q.question != nil {
		qd = 1
	}
	out = binary.BigEndian.AppendUint16(out, q.id)
	out = binary.BigEndian.AppendUint16(out, flags)
	out = binary.BigEndian.AppendUint16(out, qd)
	out = binary.BigEndian.AppendUint16(out, an)
	out = binary.BigEndian.AppendUint16(out, ns)
	out = binary.BigEndian.AppendUint16(out, ar)
	out = append(out, q.question...)
	out = append(out, body...)
	if q.edns {
		out = opt.append(out, start, limit)
	}
	if bad {
		out = appendBadKey(out, q, now)
	}
	return out
}

// appendTruncated appends an answer that only says to ask again over TCP, or with
// the cookie that it has. The code is that of the answer in whose place it is, if
// that is known.
func (h *Handler) appendTruncated(out []byte, q *query, c Client, now time.Time, instead *answer) []byte {
	a := answer{aa: true, ede: edeNone, body: tooLong[:], extra: len(tooLong)}
	if instead != nil {
		a.rcode, a.aa = instead.rcode, instead.aa
	}
	n := len(out)
	cookie := h.cookie(q, c, now)
	out = h.write(out, h.view.Load(), q, &a, c, now, &cookie)
	h.stat.count(UDP, q, out[n:], &a)
	return out
}

// tooLong is a body that never fits.
var tooLong [maxSize]byte

// reply makes the EDNS part of an answer.
func (h *Handler) reply(v *view, q *query, a *answer, c Client) ednsReply {
	r := ednsReply{rcode: int(a.rcode), do: q.do, co: q.co && v.chain == nil, ede: a.ede, edeText: a.edeText, pad: c.Transport.encrypted() && q.padding}
	if q.version != 0 {
		return r
	}
	if q.nsid {
		r.nsid = v.zone.cfg.NSID
	}
	if q.keepalive && (c.Transport == TCP || c.Transport == TLS) {
		r.keepalive = uint16(time.Duration(h.idle.Load()) / (100 * time.Millisecond))
	}
	if a.aa {
		if q.zoneVersion {
			r.version, r.labels, r.serial = true, labelCount(v.zone.origin), uint32(v.head.Size)
		}
		r.agent = v.zone.agent
	}
	return r
}

// appendBadKey appends the TSIG record that says that the key is not known; it
// is not signed (RFC 8945, section 5.2.1).
func appendBadKey(b []byte, q *query, now time.Time) []byte {
	b = append(b, q.tsigName...)
	b = binary.BigEndian.AppendUint16(b, dns.TypeTSIG)
	b = binary.BigEndian.AppendUint16(b, dns.ClassANY)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(q.tsigAlg)+16))
	b = append(b, q.tsigAlg...)
	t := uint64(now.Unix())
	b = append(b, byte(t>>40), byte(t>>32), byte(t>>24), byte(t>>16), byte(t>>8), byte(t))
	b = append(b, 1, 44) // fudge of 300 seconds
	b = append(b, 0, 0)  // no MAC
	b = binary.BigEndian.AppendUint16(b, q.id)
	b = binary.BigEndian.AppendUint16(b, dns.RcodeBadKey)
	return append(b, 0, 0)
}
