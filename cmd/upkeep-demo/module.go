package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/mod/semver"

	"example.org/upkeep/internal/goproxy"
)

// splitModule takes the value of -module apart.
func splitModule(spec string) (pkg, version string, err error) {
	pkg, version, _ = strings.Cut(spec, "@")
	if pkg == "" || semver.Canonical(version) != strings.TrimSuffix(version, "+incompatible") || version == "" {
		return "", "", fmt.Errorf("-module %s: give a path and an exact version, as in MODULE/CMD@v1.2.3", spec)
	}
	return pkg, version, nil
}

// findModule takes proxy and checksum database of this machine and splits
// -module into module and command.
func (d *demo) findModule(ctx context.Context) (string, error) {
	pkg, version, err := splitModule(d.module)
	if err != nil {
		return "", err
	}
	env, err := goproxy.FromEnv(ctx)
	if err != nil {
		return "", err
	}
	d.proxy, d.sumdb = env.GOPROXY, env.GOSUMDB
	proxy, err := goproxy.New(env.GOPROXY, webClient)
	if err != nil {
		return "", err
	}
	for path := pkg; path != "." && path != ""; path = parent(path) {
		if _, err := proxy.Info(ctx, path, version); err == nil {
			d.source = target{module: path, command: pkg, version: version}
			for _, a := range strings.Fields(d.serviceArgs) {
				host, port, _ := net.SplitHostPort(d.addr.service)
				d.source.args = append(d.source.args, strings.NewReplacer("{host}", host, "{port}", port, "{addr}", d.addr.service).Replace(a))
			}
			return fmt.Sprintf("%s has %s", path, version), nil
		} else if !errors.Is(err, goproxy.ErrNotFound) {
			return "", err
		}
	}
	return "", fmt.Errorf("-module %s: the module proxy knows no module of which this is a package at that version", d.module)
}
