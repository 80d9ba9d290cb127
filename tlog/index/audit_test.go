package index

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

func auditor(t *testing.T, content logtest.Content, size int64) (Auditor, *logtest.Server) {
	t.Helper()
	s, err := logtest.NewServer("", content, size)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	c, err := tlog.NewClient(tlog.ClientConfig{Key: s.VerifierKey(), URL: srv.URL, Dir: t.TempDir(), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	head, err := c.Update(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return Auditor{Client: c, Head: head}, s
}

// An audit finds each version with several records, also those that newer
// versions superseded long before, in as many parts as it likes.
func TestAudit(t *testing.T) {
	content := logtest.Content{Spread: 2000, Malformed: 100, Duplicate: 777}
	const size = 20_123
	a, _ := auditor(t, content, size)
	records := map[string][]int64{}
	malformed := int64(0)
	for i := range int64(size) {
		if i%content.Malformed == content.Malformed-1 {
			malformed++
			continue
		}
		version, _, _ := strings.Cut(string(content.Append(nil, i)), " h1:")
		records[version] = append(records[version], i)
	}
	var want []string
	for version, numbers := range records {
		if len(numbers) > 1 {
			want = append(want, fmt.Sprintf("%06d %s %v", numbers[0], version, numbers))
		}
	}
	slices.Sort(want)
	if len(want) < 20 {
		t.Fatalf("the log has only %d versions with several records: the test tests nothing", len(want))
	}
	for _, prints := range []int{0, 20_000, 3000} {
		a.prints = prints
		reported := int64(0)
		a.Progress = func(pass string, done int64) { reported = done }
		result, err := a.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range result.Versions {
			var numbers []int64
			for _, r := range v.Records {
				numbers = append(numbers, r.Number)
				text := string(content.Append(nil, r.Number))
				if text != fmt.Sprintf("%s %s %s\n%s %s/go.mod %s\n", v.Module, v.Version, r.Zip, v.Module, v.Version, r.GoMod) {
					t.Errorf("record %d is\n%stold is %+v", r.Number, text, r)
				}
			}
			got = append(got, fmt.Sprintf("%06d %s %s %v", v.Records[0].Number, v.Module, v.Version, numbers))
		}
		if !slices.Equal(got, want) {
			t.Errorf("with %d hashes at once: %d versions were found, want %d:\n%q\n%q", prints, len(got), len(want), got, want)
		}
		if result.Records != size || result.Malformed != malformed || result.More || result.Differ() != len(want) || reported != size {
			t.Errorf("with %d hashes at once: %d records, %d malformed (want %d), more: %v, %d of %d differ, progress ended at %d",
				prints, result.Records, result.Malformed, malformed, result.More, result.Differ(), len(want), reported)
		}
	}
}

func TestAuditHonest(t *testing.T) {
	a, s := auditor(t, logtest.Content{Spread: 2000}, 3000)
	if result, err := a.Run(t.Context()); err != nil || result.Records != 3000 || len(result.Versions) != 0 || result.Malformed != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	s.SetFaults(logtest.Faults{RefuseData: true})
	if _, err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "auditing log") {
		t.Errorf("a log without data tiles: %v", err)
	}
}

// The parts of an audit are about equal: what is kept in memory at once depends on it.
func TestAuditParts(t *testing.T) {
	for parts := range uint64(7) {
		parts++
		n := make([]int, parts)
		const versions = 70_000
		for i := range versions {
			n[partOf(versionPrint(fmt.Appendf(nil, "example.org/m v1.0.%d h1:", i)), parts)]++
		}
		if fair := versions / int(parts); slices.Min(n) < fair*9/10 || slices.Max(n) > fair*11/10 {
			t.Errorf("of %d versions, the parts hold %v", versions, n)
		}
	}
}

func TestAuditNote(t *testing.T) {
	record := func(k byte) []byte {
		h := "h1:" + strings.Repeat(string(rune('A'+k)), 43) + "="
		return []byte("example.org/m v1.0.0 h1:" + strings.Repeat("z", 43) + "=\nexample.org/m v1.0.0/go.mod " + h + "\n")
	}
	found := map[string]*Audited{}
	note(found, 1, record(0))
	note(found, 2, record(0))
	v := found["example.org/m v1.0.0"]
	if v == nil || v.Count != 2 || v.Differ {
		t.Fatalf("two equal records: %+v", v)
	}
	for k := range 20 {
		note(found, int64(3+k), record(byte(k)))
	}
	if v.Count != 22 || !v.Differ || len(v.Records) != auditRecords {
		t.Errorf("many records: %d, differ: %v, %d kept", v.Count, v.Differ, len(v.Records))
	}
}
