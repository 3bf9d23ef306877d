Gem::Specification.new do |s|
  s.name = "json"
  s.version = "2.6.1"
  s.license = "Ruby"
end
