package logtest

import (
	"testing"

	"example.org/upkeep/tlog"
)

// OpenLog opens an empty log in a folder of the test's own. It returns the
// verifier key with it, and closes the log when the test ends.
func OpenLog(t testing.TB, name string) (l *tlog.Log, verifier string) {
	t.Helper()
	signer, verifier, err := tlog.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err = tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, verifier
}
