-- Draws a coppiced tree: many stems from one stump.
--   tree.lua text COLUMNS ROWS           on a terminal
--   tree.lua left|right WIDTH HEIGHT     that half of the picture, as PPM
local mode, width, height = arg[1], tonumber(arg[2]), tonumber(arg[3])

-- a generator of our own, so that every machine draws the same tree
local seed = 20
local function random()
  seed = (seed * 1103515245 + 12345) % 2147483648
  return seed / 2147483648
end

-- Calls paint(x, y, radius, is_leaf) along every branch; x and y in 0..1, y upwards.
local function branch(paint, step, x, y, angle, length, radius, depth)
  local dx, dy = math.cos(angle), math.sin(angle)
  local at = 0
  while at < length do
    paint(x + dx * at, y + dy * at, radius * (1 - 0.4 * at / length), false)
    at = at + step
  end
  x, y = x + dx * length, y + dy * length
  if depth == 0 then return paint(x, y, 0.005, true) end
  for side = -1, 1, 2 do
    local turn = side * (0.25 + 0.35 * random())
    branch(paint, step, x, y, angle + turn, length * (0.66 + 0.14 * random()), radius * 0.6, depth - 1)
  end
end

local function tree(paint, step, depth)
  for stem = -2, 2 do
    branch(paint, step, 0.5 + 0.03 * stem, 0.02, math.pi / 2 - 0.24 * stem, 0.21, 0.012, depth)
  end
end

local function text()
  local rows = {}
  for r = 1, height do rows[r] = {} end
  tree(function(x, y, _, leaf)
    local c, r = math.floor(x * width) + 1, height - math.floor(y * height)
    if c < 1 or c > width or r < 1 or r > height then return end
    if leaf then rows[r][c] = "*" elseif not rows[r][c] then rows[r][c] = y < 0.25 and "#" or "+" end
  end, 0.005, 4)
  for r = 1, height do
    local line = {}
    for c = 1, width do line[c] = rows[r][c] or " " end
    io.write((table.concat(line):gsub(" +$", "")), "\n")
  end
end

local function picture(from, to)
  local sky, pixels = {}, {}
  for r = 0, height - 1 do sky[r] = string.char(205 + r * 40 // height, 225 + r * 20 // height, 245) end
  tree(function(x, y, radius, leaf)
    local cx, cy, rad = x * width, (1 - y) * height, math.max(radius * width, 0.8)
    local colour = leaf and string.char(60 + math.floor(90 * y), 120 + math.floor(90 * x), 50) or
      string.char(92, 64 + math.floor(30 * y), 40)
    for py = math.max(0, math.ceil(cy - rad)), math.min(height - 1, math.floor(cy + rad)) do
      local half = math.sqrt(rad * rad - (py - cy) ^ 2)
      for px = math.max(from, math.ceil(cx - half)), math.min(to - 1, math.floor(cx + half)) do
        pixels[py * width + px] = colour
      end
    end
  end, 0.4 / width, 11)
  io.write(string.format("P6\n%d %d\n255\n", to - from, height))
  for r = 0, height - 1 do
    local line = {}
    for c = from, to - 1 do line[#line + 1] = pixels[r * width + c] or sky[r] end
    io.write(table.concat(line))
  end
end

if mode == "text" then text()
elseif mode == "left" then picture(0, width // 2)
elseif mode == "right" then picture(width // 2, width)
else error("usage: tree.lua text|left|right WIDTH HEIGHT") end
