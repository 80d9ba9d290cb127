//go:build linux

package retain

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"example.org/upkeep/supervisor/process"
)

// BenchmarkCalls: what the filter costs a service's ordinary system calls, and
// what a bind costs, in time per call inside the service. Both services run in
// turn, so that their ratio holds on a busy machine.
func BenchmarkCalls(b *testing.B) {
	if err := process.CanTellBinds("/proc/self/exe"); err != nil {
		b.Skip(err)
	}
	for _, call := range []string{"getppid", "write", "bind"} {
		b.Run(call, func(b *testing.B) {
			spent := map[bool]float64{}
			for b.Loop() {
				for _, kept := range []bool{false, true} {
					spent[kept] += measure(b, call, kept)
				}
			}
			n := float64(b.N)
			b.ReportMetric(spent[false]/n, "ns/call-plain")
			b.ReportMetric(spent[true]/n, "ns/call-kept")
			b.ReportMetric(spent[true]/spent[false], "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// measure runs a service that makes calls and returns what one takes.
func measure(b *testing.B, call string, kept bool) float64 {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	out, err := os.CreateTemp(b.TempDir(), "out")
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	s := process.Spec{File: exe, Name: "calls", Env: append(os.Environ(), envService+"=calls="+call+","+out.Name())}
	k := New(Options{})
	if kept {
		s.Handover, s.TellBinds = k, true
	}
	defer k.Release()
	p, err := process.NewOS(b.TempDir(), k.log).Start(s)
	if err != nil {
		b.Fatal(err)
	}
	<-p.Done()
	data, err := os.ReadFile(out.Name())
	if err != nil {
		b.Fatal(err)
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(data)), 64)
	if err != nil {
		b.Fatal(err, p.Exit())
	}
	return ns
}
