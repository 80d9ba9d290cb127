// Command upkeep-dns serves the latest versions of Go modules over DNS, from
// an index of a checksum database that it keeps up to date itself.
package main

import (
	"example.org/upkeep/internal/cli"
)

func main() { program().Main() }

func program() *cli.Program {
	return &cli.Program{
		Name:  "upkeep-dns",
		Short: "upkeep-dns serves the latest versions of Go modules over DNS.",
		Example: `upkeep-dns keygen -zone l.example.org -keys keys
upkeep-dns serve -zone l.example.org -keys keys -state state -ns ns0=192.0.2.1 -listen :53 -watch github.com/mjl-/mox
dig @192.0.2.1 mox.mjl_2d._.github.com.v0.l.example.org TXT`,
		Commands: []*cli.Command{
			serveCommand(),
			followCommand(),
			lookupCommand(),
			auditCommand(),
			dumpCommand(),
			keygenCommand(),
			dsCommand(),
			keyStatusCommand(),
			keyRollCommand(),
			configDefaultCommand(),
			configCheckCommand(),
		},
	}
}
