package main

import (
	"path/filepath"
	"slices"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/fetch"
)

// defaultConfigFile is what commands read when -config is not given.
const defaultConfigFile = "upkeep.toml"

// Config is the configuration file of upkeep.
type Config struct {
	State     string                   `toml:"state" comment:"Folder for upkeep's own files: state, logs, control socket. Relative to this file's\nfolder."`
	Service   supervisor.ServiceConfig `toml:"service" comment:"What is run."`
	Updates   supervisor.UpdatesConfig `toml:"updates" comment:"What is installed, and when."`
	Discovery discover.Config          `toml:"discovery" comment:"Where new versions are learned from."`
	Fetch     fetch.Config             `toml:"fetch" comment:"Where binaries come from, and how they are verified."`
	Process   supervisor.ProcessConfig `toml:"process" comment:"How the service is run."`
	Health    supervisor.HealthConfig  `toml:"health" comment:"When a new version is good."`
	Hooks     supervisor.HooksConfig   `toml:"hooks" comment:"Commands run around updates, with the facts in their environment."`
	Control   supervisor.ControlConfig `toml:"control" comment:"Control socket."`
	Web       supervisor.WebConfig     `toml:"web" comment:"Web page and metrics."`
	Proxy     supervisor.ProxyConfig   `toml:"proxy" comment:"A proxy before the service, for process.handover = \"proxy\"."`
	Self      supervisor.SelfConfig    `toml:"self" comment:"How upkeep keeps itself up to date."`
}

// defaultConfig is the configuration of an empty file.
func defaultConfig() Config {
	d := supervisor.Defaults()
	return Config{
		State:     "upkeep-state",
		Updates:   d.Updates,
		Discovery: discover.DefaultConfig(),
		Fetch:     fetch.DefaultConfig(),
		Process:   d.Process,
		Health:    d.Health,
		Hooks:     d.Hooks,
		Self:      d.Self,
		Proxy:     d.Proxy,
	}
}

// loadConfig reads a configuration file. Relative file names in it are made
// relative to its folder. With an error the configuration holds what could be
// read.
func loadConfig(file string) (Config, error) {
	c := defaultConfig()
	err := config.Load(file, &c)
	c.resolve(file)
	return c, err
}

// resolve makes file names independent of the working directory.
func (c *Config) resolve(file string) {
	dir := filepath.Dir(file)
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	files := []*string{&c.State, &c.Service.Path, &c.Process.Dir, &c.Control.Socket, &c.Self.Path, &c.Web.Access, &c.Web.Cert, &c.Web.Key, &c.Web.Roots,
		&c.Discovery.Anchor, &c.Discovery.CA, &c.Discovery.Cache, &c.Fetch.CA}
	for i := range c.Discovery.Also {
		files = append(files, &c.Discovery.Also[i].Anchor)
	}
	for i, s := range c.Process.Sockets {
		if s.Network == "unix" || s.Network == "unixgram" {
			files = append(files, &c.Process.Sockets[i].Address)
		}
	}
	for _, p := range files {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	c.Fetch.Dir = filepath.Join(c.State, "fetch")
}

// engine returns the engine's part, with the service's arguments of the command line.
func (c *Config) engine(file string, args []string) supervisor.Config {
	service := c.Service
	service.Args = append(slices.Clone(service.Args), args...)
	return supervisor.Config{
		State: c.State, File: file, Socket: supervisor.ControlSocket(c.Control, c.State),
		Service: service, Updates: c.Updates, Process: c.Process, Health: c.Health, Hooks: c.Hooks, Self: c.Self, Proxy: c.Proxy,
	}
}
