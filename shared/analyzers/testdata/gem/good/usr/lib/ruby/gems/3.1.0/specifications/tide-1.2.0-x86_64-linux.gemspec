# -*- encoding: utf-8 -*-
# stub: tide 1.2.0 x86_64-linux lib

Gem::Specification.new do |s|
  s.name = "tide".freeze
  s.version = "1.2.0"
  s.platform = "x86_64-linux".freeze

  s.required_rubygems_version = Gem::Requirement.new(">= 0".freeze) if s.respond_to? :required_rubygems_version=
  s.authors = ["A. Pilot".freeze]
  s.licenses = ["MIT".freeze, "Apache-2.0".freeze]
  s.specification_version = 4

  s.add_runtime_dependency(%q<rack>.freeze, [">= 1.3"])
  s.add_dependency("logger".freeze, ["~> 1.0".freeze])
  s.add_development_dependency(%q<minitest>.freeze, ["~> 5.0"])
end
