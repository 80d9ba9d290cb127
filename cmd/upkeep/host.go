package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
	"example.org/upkeep/web/acme"
	"example.org/upkeep/web/login"
	"example.org/upkeep/web/servicepage"
)

func webCommand() *cli.Command {
	var listen web.Listen
	var access, hosts string
	return &cli.Command{
		Name: "web", Args: "CONFIG...", Short: "one page for all supervised services of this host",
		Long: `It reads the configurations of the services' supervisors and talks to each by its
control socket, so it has to run as a user who may use these. From a shell,
/srv/*/upkeep.toml names them all. With -access people have to log in as "upkeep
passwd" has noted in that file, which may be that of one of the supervisors.`,
		Example: "upkeep web -listen 127.0.0.1:8299 /srv/*/upkeep.toml",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&listen.Addr, "listen", "127.0.0.1:8299", "`address` of the page")
			fs.StringVar(&access, "access", "", "`file` with passwords and tokens; without one nobody has to log in")
			fs.StringVar(&hosts, "hosts", "", "`names` that the page is reached under, with commas")
			fs.StringVar(&listen.Cert, "cert", "", "PEM `file` with the page's certificate")
			fs.StringVar(&listen.Key, "key", "", "PEM `file` with its key")
			fs.StringVar(&listen.ACME.Directory, "acme", "", "directory `URL` of an ACME server that issues the certificate for -hosts")
			fs.StringVar(&listen.ACME.Dir, "acme-dir", "acme", "`folder` for that certificate and its key")
			fs.BoolVar(&listen.Plain, "plain", false, "allow an address that other machines reach without TLS")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("name the configurations of the supervisors")
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			services, err := hostServices(args)
			if err != nil {
				return err
			}
			page := servicepage.Config{Security: web.Security{HTTPS: listen.TLS() || listen.Plain, Log: log}, Log: log}
			for h := range strings.SplitSeq(hosts, ",") {
				if h = strings.TrimSpace(h); h != "" {
					page.Security.Hosts = append(page.Security.Hosts, h)
				}
			}
			listen.ACME.Names, listen.ACME.Log = acme.Names(page.Security.Hosts), log
			if access != "" {
				page.Login, err = login.New(login.Config{File: access, HTTPS: page.Security.HTTPS, Program: "upkeep", Log: log})
				if err != nil {
					return err
				}
				listen.Login = true
			}
			return serveHost(ctx, listen, servicepage.NewHost(page, services), log)
		},
	}
}

// hostServices are the services of the configurations, by the names of their folders.
func hostServices(files []string) ([]servicepage.Service, error) {
	var list []servicepage.Service
	for _, file := range files {
		file, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		c, err := loadConfig(file)
		if c.State == "" || errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, fmt.Errorf("%s: names no state folder, so there is no control socket to ask", file))
		}
		// A mistake elsewhere in the file is for its supervisor to tell.
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		if name == "upkeep" {
			name = filepath.Base(filepath.Dir(file))
		}
		list = append(list, servicepage.Service{Name: name, Builder: c.Fetch.Builder, ReleaseNotes: c.Web.ReleaseNotes,
			Controller: supervisor.NewClient(supervisor.ControlSocket(c.Control, c.State))})
	}
	return list, nil
}

func serveHost(ctx context.Context, listen web.Listen, h http.Handler, log *slog.Logger) error {
	l, err := listen.Open(ctx)
	if err != nil {
		return err
	}
	srv := web.NewServer(h, log)
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	context.AfterFunc(ctx, func() { srv.Close() })
	log.Info("web page", "address", l.Addr().String(), "login", listen.Login)
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("web page: %w", err)
	}
	return nil
}
