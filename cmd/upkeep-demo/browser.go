package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/html"

	"example.org/upkeep/internal/httpget"
)

// A browser presses buttons as one without JavaScript does: it reads the page,
// takes the form with that button and sends its fields.
type browser struct{ hc *http.Client }

func newBrowser() *browser {
	jar, _ := cookiejar.New(nil) // never fails without options
	return &browser{&http.Client{Jar: jar, Timeout: 10 * time.Second}}
}

// page returns the text of a page.
func (b *browser) page(ctx context.Context, addr string) (string, error) {
	data, err := httpget.Get(ctx, b.hc, addr, 4<<20)
	return string(data), err
}

// press sends the form of the page whose button's text starts with label.
func (b *browser) press(ctx context.Context, addr, label string) error {
	text, err := b.page(ctx, addr)
	if err != nil {
		return err
	}
	base, err := url.Parse(addr)
	if err != nil {
		return err
	}
	action, fields, err := findForm(text, label)
	if err != nil {
		return fmt.Errorf("page %s: %w", addr, err)
	}
	target, err := base.Parse(action)
	if err != nil {
		return fmt.Errorf("page %s: %w", addr, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(fields.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Origin", base.Scheme+"://"+base.Host)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := b.hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return httpget.Check(resp)
}

// findForm returns the action and fields of the POST form with a button.
func findForm(page, label string) (string, url.Values, error) {
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return "", nil, err
	}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" || !strings.EqualFold(attr(n, "method"), "post") {
			continue
		}
		fields, pressed := url.Values{}, false
		for c := range n.Descendants() {
			if c.Type != html.ElementNode {
				continue
			}
			switch c.Data {
			case "button":
				if !pressed && strings.HasPrefix(innerText(c), label) {
					pressed = true
					if name := attr(c, "name"); name != "" {
						fields.Set(name, attr(c, "value"))
					}
				}
			case "input":
				if name := attr(c, "name"); name != "" && attr(c, "type") != "checkbox" {
					fields.Set(name, attr(c, "value"))
				}
			}
		}
		if pressed {
			return attr(n, "action"), fields, nil
		}
	}
	return "", nil, fmt.Errorf("there is no form with a button %q", label)
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func innerText(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
