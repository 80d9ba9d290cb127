//go:build unix

package proxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// BenchmarkRequests compares requests through the proxy with direct ones:
// keep-alive GETs of 1 kB.
//
//	go test -run '^$' -bench . ./supervisor/proxy
func BenchmarkRequests(b *testing.B) {
	body := make([]byte, 1<<10)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) }))
	defer back.Close()
	addr := back.Listener.Addr().String()
	viaHTTP, _ := front(b, HTTP, addr)
	viaTCP, _ := front(b, TCP, addr)
	direct := 0.0
	for _, c := range []struct{ name, addr string }{{"direct", addr}, {"http", viaHTTP}, {"tcp", viaTCP}} {
		b.Run(c.name, func(b *testing.B) {
			tr := &http.Transport{MaxIdleConnsPerHost: 64}
			defer tr.CloseIdleConnections()
			hc := &http.Client{Transport: tr}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					resp, err := hc.Get("http://" + c.addr)
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
			each := b.Elapsed().Seconds() / float64(b.N)
			if c.name == "direct" {
				direct = each
			} else if direct > 0 {
				b.ReportMetric(each/direct, "×direct")
			}
		})
	}
}

// BenchmarkBytes compares a long download: 64 MB for each operation.
func BenchmarkBytes(b *testing.B) {
	const size = 64 << 20
	block := make([]byte, 256<<10)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range size / len(block) {
			w.Write(block)
		}
	}))
	defer back.Close()
	addr := back.Listener.Addr().String()
	viaHTTP, _ := front(b, HTTP, addr)
	viaTCP, _ := front(b, TCP, addr)
	direct := 0.0
	for _, c := range []struct{ name, addr string }{{"direct", addr}, {"http", viaHTTP}, {"tcp", viaTCP}} {
		b.Run(c.name, func(b *testing.B) {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			hc := &http.Client{Transport: tr}
			b.SetBytes(size)
			for b.Loop() {
				resp, err := hc.Get("http://" + c.addr)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if n != size || err != nil {
					b.Fatal(n, err)
				}
			}
			each := b.Elapsed().Seconds() / float64(b.N)
			if c.name == "direct" {
				direct = each
			} else if direct > 0 {
				b.ReportMetric(each/direct, "×direct")
			}
		})
	}
}

// BenchmarkConnections compares new connections, one request each.
func BenchmarkConnections(b *testing.B) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer back.Close()
	addr := back.Listener.Addr().String()
	viaHTTP, _ := front(b, HTTP, addr)
	viaTCP, _ := front(b, TCP, addr)
	direct := 0.0
	for _, c := range []struct{ name, addr string }{{"direct", addr}, {"http", viaHTTP}, {"tcp", viaTCP}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				conn, err := net.DialTimeout("tcp", c.addr, time.Minute)
				if err != nil {
					b.Fatal(err)
				}
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				if _, err := io.ReadAll(conn); err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
			each := b.Elapsed().Seconds() / float64(b.N)
			if c.name == "direct" {
				direct = each
			} else if direct > 0 {
				b.ReportMetric(each/direct, "×direct")
			}
		})
	}
}
