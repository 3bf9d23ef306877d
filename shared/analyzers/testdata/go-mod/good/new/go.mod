module example.com/app // the service

go 1.21.3

toolchain go1.22.1

require github.com/pkg/errors v0.9.1

require (
	github.com/own/fork v1.0.0
	github.com/local/thing v1.0.0
	github.com/bad/version v1.2.0
	golang.org/x/text v0.3.7 // indirect
	golang.org/x/net v0.1.0 // indirect
)

replace github.com/own/fork => github.com/fork/fork v1.0.1

replace (
	github.com/local/thing => ../thing
	golang.org/x/text v0.3.7 => golang.org/x/text v0.3.8
	golang.org/x/net v0.0.9 => golang.org/x/net v0.2.0
)

exclude github.com/bad/version v1.2.0

retract v0.9.0
