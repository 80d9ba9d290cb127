package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/fetch"
)

// Advice is what a patient expert says about an error: whose fault it is
// likely to be, and what to do next. The error's own sentence says what is wrong.
type Advice struct {
	Whose string
	Next  string
}

// Explain returns advice on an error of discovery, downloads or the network.
// The gravest cause inside a joined error counts.
func Explain(err error) Advice {
	var bogus *discover.BogusError
	var insecure *discover.InsecureError
	var verify *fetch.VerifyError
	var build *fetch.BuildError
	switch {
	case err == nil:
		return Advice{}
	case errors.As(err, &bogus):
		return explainBogus(bogus)
	case errors.As(err, &insecure):
		return Advice{"the operator of the zone, or of the zone above it",
			"Ask the operator to sign the zone and publish a DS record above it. If the operator gives the zone's key, pin it with discovery.anchor. upkeep does not believe unsigned answers."}
	case errors.As(err, &verify):
		return explainVerify(verify)
	case errors.As(err, &build):
		if build.Permanent {
			return Advice{"the request: module, version, package or target", "Compare them with the builder's page: " + build.URL}
		}
		return Advice{"the builder", "Look at the output on the builder's page and try again later: " + build.URL}
	case errors.Is(err, discover.ErrNoZone):
		return Advice{"this configuration, most likely a misspelt zone", "Compare discovery.zone with the name that the operator publishes."}
	case errors.Is(err, discover.ErrNotFound):
		return Advice{"this configuration, or the index", "Check the module's path for upper and lower case and for a major version like /v2 at its end. A new module appears when the index has read the log up to it; an index that watches single modules has to be told about it."}
	case errors.Is(err, discover.ErrMalformed):
		return Advice{"the operator of the zone, or this configuration, if it names a zone of something else",
			"The zone's own key signs this, so nobody on the way changed it. Compare discovery.zone with what the operator publishes; if it is right, tell the operator what its record says."}
	case errors.Is(err, discover.ErrStale):
		return Advice{"the index, somebody who replays old answers on the way, or this machine's clock",
			"Check the clock. Compare with another source (upkeep check -v with a second -source). If all are old, the operator's index has stopped reading the log. If the operator confirms that the index was set up anew with another log, remove discovery.json from the folder of the state."}
	case errors.Is(err, discover.ErrDisagree):
		return Advice{"one of the sources; evidence is kept when two signed answers contradict each other",
			"Run upkeep check -v to see what each source says. A source that is only behind catches up within minutes. Signed contradictions at one log size are the operator's to explain: send the evidence."}
	}
	if a, ok := explainTLS(err); ok {
		return a
	}
	return explainNetwork(err)
}

func explainBogus(b *discover.BogusError) Advice {
	signer := "the operator of the zone, or somebody on the way who answers in its place"
	switch b.Kind {
	case discover.WrongKey:
		return Advice{signer, "Ask the operator, over another channel, for the zone's current DS record. If it differs from the anchor or from the DS record above, the key was changed: replace discovery.anchor, or wait until the DS record is published. If it does not differ, somebody else is answering."}
	case discover.Expired:
		return Advice{"the operator, whose server signs no more; or this machine's clock; or somebody who replays old answers", "Check this machine's date. Ask another source (upkeep check -source …): if it is expired there too, tell the operator."}
	case discover.NotYetValid:
		return Advice{"most likely this machine's clock", "Set the clock (for example with chrony or systemd-timesyncd) and try again."}
	case discover.MissingSignature:
		return Advice{"the resolver or a middlebox, which removes DNSSEC records; or somebody who makes answers up", "Ask another resolver, best over TLS: add a source like \"tls://192.0.2.53:853#dns.example\". If it is the same everywhere, the operator's server does not sign."}
	case discover.BadSignature:
		return Advice{"somebody on the way who changed the answer, or a broken signer", "Ask another source. If only one gives it, do not use that one; if all do, tell the operator."}
	case discover.BadDenial:
		return Advice{"somebody on the way who hides a record, or a name server with a broken denial of existence", "Ask another source. If all agree, tell the operator: the proof that the name server sends does not cover the name."}
	case discover.BadWildcard:
		return Advice{signer, "The format has no wildcards. Ask another source, and tell the operator."}
	case discover.BadMessage:
		return Advice{"the name server, or somebody on the way", "Ask another source. If it is the same there, the zone is not one of versions: compare discovery.zone with what the operator publishes."}
	case discover.WrongSigner:
		return Advice{"the operator's delegation, or somebody on the way", "Check that discovery.zone is the zone itself and not a name inside or above it."}
	case discover.Algorithm:
		return Advice{"the operator, or somebody who downgrades on the way", "Accepted are the algorithms 8, 13, 14 and 15. Tell the operator when the zone uses another one."}
	case discover.NotAuthenticated:
		return Advice{"the local resolver, which does not validate or does not say so", "Turn on validation in the resolver, or set discovery.trust to \"dnssec\": then upkeep validates itself and needs no such resolver."}
	case discover.TooMuchWork:
		return Advice{"somebody who attacks, on the way or at the name server", "Ask another source and tell the operator."}
	}
	return Advice{signer, "Ask another source."}
}

func explainVerify(v *fetch.VerifyError) Advice {
	operator := "the operator of the builder, or somebody who took its place"
	switch v.Kind {
	case fetch.BadSum, fetch.BadSize:
		return Advice{"the builder's storage, a cache on the way, or an attacker", "Nothing was installed. Try again; if it stays, tell the operator: the file is not the one whose hash is in the log."}
	case fetch.BuildInfo, fetch.RecordMismatch:
		return Advice{operator, "Nothing was installed. Do not use this builder until its operator explains it: the log holds a record that is not of the program it names."}
	case fetch.LogFork:
		return Advice{operator, "Nothing is installed from it any more. Keep the evidence, send it to the operator and to other users of the log. Only after an explanation remove the kept tree head and begin anew."}
	case fetch.LogStale:
		return Advice{"the builder, perhaps restored from an old backup, or a cache on the way", "Wait for an hour. If it stays, tell the operator that the log went back."}
	case fetch.BadSignature:
		return Advice{"this configuration, most likely a wrong verifier key; or somebody who took the builder's place", "Compare fetch.key with the key that the operator publishes."}
	case fetch.BadLog:
		return Advice{"the builder's log server, or a cache on the way", "Try again. If it stays, tell the operator that tiles do not match the signed tree head."}
	case fetch.SumDBMissing:
		return Advice{"whoever named this version: nobody else can see it", "Do not install it. Look the version up at the module's own home; if it is minutes old, try again later."}
	case fetch.SumDBFork, fetch.SumDBSignature:
		return Advice{"the module proxy that carries the checksum database, or this configuration's fetch.sumdb", "Reach the checksum database another way (a URL after the key in fetch.sumdb). If the fork stays, keep the evidence and publish it."}
	case fetch.SumDBBad:
		return Advice{"the module proxy", "Try another proxy in fetch.proxy: what this one sends does not match the checksum database."}
	}
	return Advice{operator, "Nothing was installed. Tell the operator."}
}

// explainTLS reads the errors of TLS connections.
func explainTLS(err error) (Advice, bool) {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.As(err, &unknown):
		return Advice{"the server, whose certificate is by an authority that this machine does not trust; or somebody in between",
			"If the server has a private authority, name its certificate with ca in the configuration. If not, something between here and there presents its own certificate."}, true
	case errors.As(err, &host):
		names := strings.Join(host.Certificate.DNSNames, ", ")
		return Advice{"the server's certificate, or the address in this configuration", fmt.Sprintf("The certificate is for %s, asked was %s: use one of its names, or have the certificate renewed for this one.", or(names, "no name at all"), host.Host)}, true
	case errors.As(err, &invalid):
		if invalid.Reason == x509.Expired {
			return Advice{"the server, whose certificate is not renewed; or this machine's clock", "Check this machine's date. If it is right, tell the operator to renew the certificate."}, true
		}
		return Advice{"the server's certificate", "Tell the operator: the certificate is not one for servers, or its chain is wrong."}, true
	case errors.As(err, &record):
		return Advice{"the address in this configuration", "What answers at that port does not speak TLS: check scheme and port."}, true
	case errors.As(err, &alert):
		return Advice{"the server", "It refused the TLS connection; it must speak TLS 1.2 or newer."}, true
	}
	return Advice{}, false
}

// explainNetwork reads the errors of connections and of HTTP.
func explainNetwork(err error) Advice {
	var dnsErr *net.DNSError
	var status *httpget.StatusError
	switch {
	case errors.As(err, &dnsErr) && dnsErr.IsNotFound:
		return Advice{"this configuration, most likely a misspelt host", fmt.Sprintf("The name %s does not exist: check it in the configuration.", dnsErr.Name)}
	case errors.As(err, &dnsErr):
		return Advice{"this machine's resolver", "Check /etc/resolv.conf and whether other names can be looked up."}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Advice{"the server, which does not run, or the address in this configuration", "Check address and port. If they are right, start the server or tell its operator."}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return Advice{"this machine's network", "Check routes and, for an IPv6 address, whether there is IPv6 at all."}
	case strings.Contains(err.Error(), "SERVFAIL"):
		return Advice{"the resolver, or the name servers behind it", "Ask the zone's name server directly (dig +norecurse) and another resolver; the words in parentheses, if any, are the resolver's own reason."}
	case strings.Contains(err.Error(), "REFUSED"):
		return Advice{"this configuration, or the server's access list", "The server does not answer for this zone or not to this machine. A name server of the zone is given as server://, a resolver as udp://."}
	case errors.Is(err, goproxy.ErrNotFound):
		return Advice{"this configuration, or the module proxy", "Check the module's path. A private module needs a proxy that has it, in fetch.proxy."}
	case errors.As(err, &status) && status.Temporary():
		return Advice{"the server", "It has trouble or asks for patience; try again later."}
	case errors.As(err, &status):
		return Advice{"the address in this configuration, or the server", "The server answers, but not to this request: check the address."}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, discover.ErrUnreachable):
		return Advice{"the network between here and there, a firewall, or the server", "Check whether other programs reach it. A firewall that drops UDP or TCP port 53 looks like this: try a source over tls:// or https://."}
	case errors.Is(err, fs.ErrPermission):
		return Advice{"this machine's file permissions", "Run upkeep as the user that owns the folder, or give it the folder."}
	case errors.Is(err, fs.ErrNotExist):
		return Advice{"this configuration", "Create the file, or correct its name in the configuration."}
	}
	return Advice{"unknown", "Look at the error's own words."}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
