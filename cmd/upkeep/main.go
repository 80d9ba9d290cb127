// Upkeep runs a Go service and keeps it up to date with binaries that anybody
// can reproduce.
package main

import (
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/proxy"
)

func main() {
	process.Shim() // does not return when this process is to become the service
	proxy.Helper() // nor this when it is to forward connections
	program().Main()
}

func program() *cli.Program {
	return &cli.Program{
		Name:  "upkeep",
		Short: "Upkeep runs a Go service and keeps it up to date.",
		Example: `upkeep init example.org/hello
upkeep run -config hello/upkeep.toml
upkeep status -config hello/upkeep.toml`,
		Commands: append([]*cli.Command{
			initCommand(),
			runCommand(),
			statusCommand(),
			planCommand(),
			updateCommand(),
			rollbackCommand(),
			historyCommand(),
			logsCommand(),
			checkCommand(),
			getCommand(),
			doctorCommand(),
			passwdCommand(),
			tokenCommand(),
			webCommand(),
		}, append(decisionCommands(), configCommands()...)...),
	}
}
