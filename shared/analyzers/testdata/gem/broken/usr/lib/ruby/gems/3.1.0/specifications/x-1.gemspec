Gem::Specification.new do |s|
  s.name = File.read("name")
end
